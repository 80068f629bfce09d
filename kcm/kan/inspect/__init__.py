"""Inspection of a KAN: curves, attribution, drawings."""
