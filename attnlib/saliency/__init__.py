"""Chapter 1, saliency: what it means to attend."""
