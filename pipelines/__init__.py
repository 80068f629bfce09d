"""The method on Ray."""
