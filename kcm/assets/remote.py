"""Assets in a bucket: each node has a folder for them, and an asset is copied there when a process first needs it.

The folder's name identifies its bucket, so that a path alone, the same on every node, leads to the assets.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, unquote

from pyarrow import fs
from pydantic import BeforeValidator, PlainSerializer

from kcm.assets.manifest import MANIFEST, is_intact, make_once, read_manifest
from kcm.errors import AssetError
from kcm.inputs.location import Location, cache_folder, naming_location


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
