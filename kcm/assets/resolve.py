"""From the name of a model in a configuration to a folder with its files.

Assets may lie in a bucket: each node has a folder for them, and an asset is copied there when a process first needs it.
The folder's name identifies its bucket, so that a path alone, the same on every node, leads to the assets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pyarrow import fs
from pydantic import BeforeValidator, PlainSerializer

from kcm.assets import hub
from kcm.assets.manifest import MANIFEST, is_intact, make_once, read_manifest
from kcm.assets.trusted_paths import BundleName, may_open, require_may_open
from kcm.errors import AssetError
from kcm.inputs.location import Location, cache_folder, naming_location
from kcm.local_files import drafted


def assets_folder(place: Any) -> Any:
    """The absolute folder of this node for assets at a path or a URI."""
    if "://" in str(place):
        return cache_folder() / "assets" / quote(str(place).rstrip("/"), safe="")
    return Path(place).expanduser().absolute() if isinstance(place, str | Path) else place


def assets_place(folder: Path) -> str:
    """The inverse of `assets_folder`: the URI of the bucket's folder, or the folder itself."""
    return uri if "://" in (uri := unquote(folder.name)) else str(folder)


AssetsFolder = Annotated[Path, BeforeValidator(assets_folder), PlainSerializer(assets_place)]


def fetch_remote(name: str, assets_dir: Path) -> None:
    """Copy an asset of a bucket to this node, verified by the hashes of its manifest, unless it is here.

    Does nothing for an assets folder without a bucket, or an asset that the bucket does not hold. Raises AssetError for
    files with other hashes, DataError if the bucket cannot be read.
    """
    folder, place = assets_dir / name, assets_place(assets_dir)
    if folder.exists() or "://" not in place:
        return
    source = Location.of(place) / name
    manifest = source / MANIFEST
    if manifest.kind() != fs.FileType.File:
        return

    def fetch(draft: Path) -> tuple[Iterable[str], Mapping[str, object]]:
        _copy(manifest, draft / MANIFEST)
        facts = read_manifest(draft)
        for file in facts.get("sha256", {}):
            if Path(file).is_absolute() or ".." in Path(file).parts:
                raise AssetError(f"asset {name!r} lists {file!r}, outside its folder", where=str(source))
            _copy(source / file, draft / file)
        if not is_intact(draft):
            raise AssetError(f"asset {name!r} is damaged", where=str(source), hint="Upload it again")
        return facts["sha256"], facts

    make_once(folder, Path.exists, fetch)


def _copy(source: Location, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with naming_location(source):
        fs.copy_files(
            source.path, str(target), source_filesystem=source.file_system, destination_filesystem=fs.LocalFileSystem()
        )


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
