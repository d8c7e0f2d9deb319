"""Chapter 6, applications."""
