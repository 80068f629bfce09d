"""Metrics as pure functions: continual learning, routing, calibration, prompts, and their intervals."""
