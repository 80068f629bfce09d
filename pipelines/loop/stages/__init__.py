"""The stages of an update that a run does not have."""
