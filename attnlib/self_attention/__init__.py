"""Chapter 5, self-attention: everything with everything."""
