"""Certifying a challenger on a window of the log: its decisions, the labels it needs, its share of delta."""
