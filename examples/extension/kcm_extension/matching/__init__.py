"""Image-text matching: pairs as a source, and two encoders that a head aligns."""
