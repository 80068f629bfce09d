"""The loop, simulated on a table before anything is live: `python -m benchmarks.simulation CONFIG`."""
