"""Metrics as pure functions, with intervals: continual learning, routing, calibration and prompts."""
