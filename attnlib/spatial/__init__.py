"""Chapter 2, spatial attention: where."""
