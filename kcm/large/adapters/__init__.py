"""One adapter of large models per file."""
