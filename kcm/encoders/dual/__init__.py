"""Pictures and texts in one space: dual encoders, alignment of two encoders, features of pairs."""
