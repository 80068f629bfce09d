"""The files of wheels and source archives.

Only regular files are read and only listed names are written, so that no archive writes outside its target or plants a
link; a file that is larger than `MAX_BYTES` is refused, lest it fill the disk.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path

from kcm.errors import AssetError

MAX_BYTES = 2**31


def members(archive: Path, folder: str = "") -> Iterator[tuple[str, bytes]]:
    """Name below `folder` and content of every regular file there; the kind of archive is told by its suffix.

    Raises AssetError for a damaged archive.
    """
    with _damage_reported(archive):
        if archive.suffix in (".whl", ".zip"):
            with zipfile.ZipFile(archive) as opened:
                yield from _of_zip(opened, folder)
        else:
            with tarfile.open(archive, mode="r:*") as opened_tar:
                yield from _of_tar(opened_tar, folder)


def unpack_folder(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Write `files` of `folder` inside the one archive below `target`."""
    (archive,) = archives
    _write(dict(_listed(members(archive, f"{folder}/"), files)), files, target, archive)


def unpack_joined_zip(archives: Sequence[Path], target: Path, *, folder: str, files: Sequence[str]) -> None:
    """Join the parts `*.zip.001`, `*.zip.002`, … of the archives to one zip file; write `files` of its `folder`."""
    joined = target.with_name(f"{target.name}.zip")
    try:
        with joined.open("wb") as whole:
            for archive in archives:
                for name, content in members(archive):
                    if Path(name).suffix[1:].isdigit():
                        whole.write(content)
        unpack_folder([joined], target, folder=folder, files=files)
    finally:
        joined.unlink(missing_ok=True)


def unpack_inner_tar(archives: Sequence[Path], target: Path, *, inner: str, files: Sequence[str]) -> None:
    """Write `files`, wherever they lie, of the tar file whose name ends with `inner` inside the one source archive."""
    (archive,) = archives
    tar = target.with_name(Path(inner).name)
    try:
        tar.write_bytes(next((content for name, content in members(archive) if name.endswith(inner)), b""))
        _write({Path(name).name: content for name, content in members(tar)}, files, target, archive)
    finally:
        tar.unlink(missing_ok=True)


def _listed(found: Iterator[tuple[str, bytes]], files: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    return (member for member in found if member[0] in files)


def _write(contents: dict[str, bytes], files: Sequence[str], target: Path, archive: Path) -> None:
    for name in files:
        if name not in contents:
            raise AssetError(f"the archive holds no file {name!r}", where=archive.name)
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_bytes(contents[name])


def _of_zip(opened: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, bytes]]:
    for member in opened.infolist():
        mode = member.external_attr >> 16
        if member.filename.startswith(folder) and not member.is_dir() and (stat.S_ISREG(mode) or not stat.S_IFMT(mode)):
            _check_size(member.filename, member.file_size)
            yield member.filename.removeprefix(folder), opened.read(member)


def _of_tar(opened: tarfile.TarFile, folder: str) -> Iterator[tuple[str, bytes]]:
    for entry in opened:
        name = entry.name.removeprefix("./")
        if entry.isreg() and name.startswith(folder):
            _check_size(name, entry.size)
            content = opened.extractfile(entry)
            assert content is not None  # a regular file has content
            yield name.removeprefix(folder), content.read()


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise AssetError(f"{name!r} unpacks to {size} bytes, more than {MAX_BYTES}")


@contextmanager
def _damage_reported(archive: Path) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, zlib.error, LZMAError) as error:
        raise AssetError(f"damaged archive: {' '.join(str(error).split())}", where=archive.name) from None
