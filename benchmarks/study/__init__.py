"""What several benchmarks share: features on disk, learning as `kcm run` does by default, intervals over seeds."""
