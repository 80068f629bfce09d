"""`kcm serve`."""
