"""Applications on Ray Serve: their configuration, replicas, versions and metrics."""
