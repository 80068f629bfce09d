"""The champion's sequence goes on: what a challenger learns from the window."""
