"""From the name of a model in a configuration to a folder with its files."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from kcm.assets import hub
from kcm.assets.manifest import MANIFEST, is_intact
from kcm.assets.remote import assets_folder, fetch_remote
from kcm.assets.trusted_paths import BundleName, may_open, require_may_open
from kcm.durable import drafted
from kcm.errors import AssetError
from kcm.inputs.location import cache_folder


def default_assets() -> Path:
    """The default folder of assets: KCM_ASSETS, or `assets` in the current folder."""
    return assets_folder(os.environ.get("KCM_ASSETS") or "assets")


def user_assets() -> Path:
    """The user's own folder of assets, which counts from any folder."""
    return cache_folder() / "assets"


def find_asset(name: str, assets_dir: Path) -> Path:
    """The folder of an asset: in `assets_dir`, or else in the user's own; in `assets_dir` if neither has it."""
    folders = [assets_dir / name, user_assets() / name]
    return next((folder for folder in folders if folder.exists()), folders[0])


def resolve(model: str, assets_dir: Path) -> Path:
    """The folder of a model: a local folder, an asset of `assets_dir` or its bucket, or a download from the hub.

    A local folder that a bundle names is used only if `trusted_paths.may_open` allows it; otherwise the name is an id.
    A folder `assets_dir/model`, or one in the user's own assets, is an asset, and used only while its files have the
    hashes in its manifest. An id in the hub's own cache is taken from there without asking the hub. The first commit is
    recorded in `assets_dir`, and is used from then on.
    Raises AssetError, naming the path or the id to repair.
    """
    folder = Path(model).expanduser()
    leads_out = folder.is_absolute() or ".." in folder.parts or model.startswith(("./", "~"))
    if leads_out and isinstance(model, BundleName):
        require_may_open(model, assets_dir)
    if folder.is_dir() and may_open(model, assets_dir):
        return folder
    if leads_out:
        raise AssetError(
            f"no such model folder {model!r}", hint="Give a folder that exists, or the id of a model on the hub"
        )
    fetch_remote(model, assets_dir)
    asset = find_asset(model, assets_dir)
    if asset.exists():
        if is_intact(asset):
            return asset
        raise AssetError(
            f"asset {model!r} is damaged: no {MANIFEST} in its folder states the hashes that its files have",
            where=str(asset),
            hint="Move the folder away and fetch the model again",
        )
    return _from_hub(model, assets_dir)


def _from_hub(model: str, assets_dir: Path) -> Path:
    pin = assets_dir / ".revisions" / model.replace("/", "--")
    revision = pin.read_text(encoding="utf-8").strip() if pin.is_file() else None
    try:
        folder = hub.cached_model(model, revision) or hub.download_model(model, revision)
    except AssetError as error:
        raise AssetError(
            f"model {model!r} is neither in the assets nor in the hub's cache, and {error.what}",
            where=str(assets_dir),
            hint=f"Check the id and the network, or name a folder; the demo's: `python tools/assets.py {model}`",
        ) from None
    if revision is None:
        # The cache names a snapshot's folder after its commit. If the assets are read-only, only the cache holds it.
        with suppress(OSError), drafted(pin) as draft:
            draft.write_text(f"{folder.name}\n", encoding="utf-8")
    return folder
