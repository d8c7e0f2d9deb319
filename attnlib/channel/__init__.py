"""Chapter 3, channel attention: what."""
