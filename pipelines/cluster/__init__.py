"""The Ray cluster of a run: an existing or a local one, and access to it."""
