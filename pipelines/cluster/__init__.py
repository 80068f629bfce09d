"""The Ray cluster of a run: one that is there, or a local one, and who may use it."""
