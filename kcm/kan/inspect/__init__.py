"""Looking into a KAN: curves, attribution, pruning, symbolic forms, drawings."""
