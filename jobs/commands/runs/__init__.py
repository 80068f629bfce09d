"""Runs: here, a stage of them, or on another cluster as a job."""
