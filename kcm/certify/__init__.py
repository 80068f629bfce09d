"""What may be promised of a threshold, and whether it still holds."""
