"""Inspection of a KAN: curves, attribution, pruning, symbolic forms, drawings."""
