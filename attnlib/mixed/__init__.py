"""Chapter 4, mixed attention: what and where."""
