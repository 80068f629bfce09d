"""The loop: the served cascade learns from its own traffic, is certified again, and is promoted or rolled back."""
