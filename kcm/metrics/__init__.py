"""Metrics as pure functions, with intervals: continual learning, routing and calibration."""
