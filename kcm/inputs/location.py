"""Locations of files: on this machine, or in an object store (`s3://`, `gs://`), through pyarrow's file systems.

A URI may end with options of its store: `endpoint_override`, `scheme` and `region` for S3, and `anonymous` for public
buckets, as in `s3://bucket/rows?endpoint_override=http://localhost:9000` and `gs://bucket/rows?anonymous=true`.
Credentials come from the environment, as for the store's own tools; S3's `AWS_ENDPOINT_URL` is respected.
"""

from __future__ import annotations

import os
import posixpath
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from urllib.parse import parse_qsl

import pyarrow as pa
from pyarrow import fs

from kcm._messages import store_fault
from kcm.errors import DataError
from kcm.local_files import require_regular

_URI = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]+)://(?P<path>[^?]*|.*?)(\?(?P<options>\w+=[^?]*))?")
_MAGIC = re.compile(r"[*?[]")
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd", ".lz4": "lz4"}
_CONNECT_SECONDS, _REQUEST_SECONDS = 10.0, 60.0
SETTLED_S = 2.0  # after this long, another change gets another time on any file system


def cache_folder() -> Path:
    """This node's folder for copies from buckets: KCM_CACHE, or else in the user's cache folder."""
    if folder := os.environ.get("KCM_CACHE"):
        return Path(folder).absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "kcm"


@dataclass(frozen=True, order=True)
class Location:
    """One file or folder. `path` is its path in its file system; `store` is the URI without a path, "" on this machine.

    It can be pickled, and opened on any machine that sees the store.
    """

    path: str
    store: str = ""

    @classmethod
    def of(cls, path: str | Path) -> Location:
        """The location that a user wrote. Raises DataError for an unsupported scheme."""
        match = _URI.fullmatch(str(path)) if isinstance(path, str) else None
        if match is None:
            return cls(os.path.abspath(Path(path).expanduser()))
        scheme, inner, options = match["scheme"], match["path"].rstrip("/"), match["options"]
        if scheme == "file":
            return cls(inner)
        if scheme not in ("s3", "gs", "gcs"):
            raise DataError(f"cannot read from {scheme}://", where=str(path), hint="Use a local path, s3:// or gs://")
        bucket = inner.partition("/")[0]
        return cls(inner, f"{scheme}://{bucket}" + (f"?{options}" if options else ""))

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine."""
        return not self.store

    @property
    def name(self) -> str:
        """The last part of the path."""
        return posixpath.basename(self.path)

    @property
    def suffix(self) -> str:
        """The suffix of the format, in lower case: `.csv` for rows.CSV.gz."""
        stem, suffix = posixpath.splitext(self.name.lower())
        return posixpath.splitext(stem)[1] if suffix in _COMPRESSED else suffix

    @property
    def folder(self) -> Location:
        """The parent folder."""
        return Location(posixpath.dirname(self.path), self.store)

    def __truediv__(self, relative: str) -> Location:
        """A location below this folder."""
        return Location(posixpath.join(self.path, relative), self.store)

    def __str__(self) -> str:
        return f"{self.store.partition('://')[0]}://{self.path}" if self.store else self.path

    @property
    def file_system(self) -> fs.FileSystem:
        """The file system; one per store in a process."""
        return _file_system(self.store, _endpoint())

    def kind(self) -> fs.FileType:
        """Whether it is a file, a folder or nothing. Raises DataError if its bucket is missing, or does not answer."""
        bucket = self.path.partition("/")[0]
        with naming_location(self):
            kind = self.file_system.get_file_info(self.path).type
            nothing = kind == fs.FileType.NotFound
            if nothing and self.store and self.file_system.get_file_info(bucket).type == fs.FileType.NotFound:
                raise DataError(f"the bucket {bucket!r} does not exist", where=str(self))
        return kind

    def size(self) -> int:
        """Bytes of the file."""
        with naming_location(self):
            return int(self.file_system.get_file_info(self.path).size or 0)

    def stamp(self) -> str | None:
        """A text that changes whenever the content may have: size, times and inode of a file, entity tag of an object.

        None if unknown: the file was changed a moment ago, or its store has no tags.
        """
        if self.is_local:
            with naming_location(self):
                stat = os.stat(self.path)
            is_settled = time.time() - max(stat.st_mtime, stat.st_ctime) > SETTLED_S
            return f"{stat.st_size}-{stat.st_mtime_ns}-{stat.st_ctime_ns}-{stat.st_ino}" if is_settled else None
        with naming_location(self), self.file_system.open_input_stream(self.path, compression=None) as stream:
            metadata = {name.lower(): value.decode() for name, value in (stream.metadata() or {}).items()}
        size = metadata.get("content-length") or metadata.get("size")  # of S3, of Google's store
        return f"{size}-{metadata['etag']}" if size and "etag" in metadata else None

    def open(self) -> pa.NativeFile:
        """A stream of the content, decompressed if the name ends with .gz, .bz2, .zst or .lz4.

        Raises DataError for a pipe or a device.
        """
        self._require_regular()
        compression = _COMPRESSED.get(posixpath.splitext(self.name.lower())[1])
        return self.file_system.open_input_stream(self.path, compression=compression)

    def open_at(self) -> pa.NativeFile:
        """The content, for reading at any offset. Raises DataError for a pipe or a device."""
        self._require_regular()
        return self.file_system.open_input_file(self.path)

    def _require_regular(self) -> None:
        if self.is_local:
            require_regular(self.path)

    def files(self, *, recursive: bool) -> list[FoundFile]:
        """The files below a folder, in the order of their paths, without hidden ones (names from `.` or `_`)."""
        with naming_location(self):
            infos = self.file_system.get_file_info(fs.FileSelector(self.path, recursive=recursive))
        start = len(self.path.rstrip("/")) + 1
        files = [
            FoundFile(Location(info.path, self.store), info.path[start:], info.size or 0)
            for info in infos
            if info.type == fs.FileType.File
            and not any(part.startswith((".", "_")) for part in info.path[start:].split("/"))
        ]
        return sorted(files, key=lambda file: file.relative.split("/"))

    def glob(self) -> list[FoundFile]:
        """The files that match a pattern: `*`, `?`, `[…]` within a folder's name, `**` across folders."""
        root = self.fixed
        pattern = self.path.removeprefix(root.path).lstrip("/").split("/")
        if root.kind() != fs.FileType.Directory:
            return []
        deep = len(pattern) > 1 or "**" in pattern
        return [file for file in root.files(recursive=deep) if _matches(file.relative.split("/"), pattern)]

    @property
    def fixed(self) -> Location:
        """The folder before the first pattern in the path."""
        parts = self.path.split("/")
        number = next(number for number, part in enumerate(parts) if _MAGIC.search(part))
        return Location("/".join(parts[:number]) or "/", self.store)

    @property
    def is_pattern(self) -> bool:
        """Whether it is a pattern; a name of an existing file is never a pattern."""
        return bool(_MAGIC.search(self.path)) and self.kind() == fs.FileType.NotFound


@dataclass(frozen=True)
class FoundFile:
    """A file in a folder or a match of a pattern: `relative` is its path from there, `size` its bytes."""

    location: Location
    relative: str
    size: int


@contextmanager
def naming_location(location: Location) -> Iterator[None]:
    """A block that reads `location`; errors of the file system become a DataError of one line that names it."""
    try:
        yield
    except FileNotFoundError:
        raise DataError("no such file", where=str(location)) from None
    except PermissionError as error:
        raise DataError(f"no permission to read it: {error.strerror or error}", where=str(location)) from None
    except OSError as error:
        fault, hint = _fault_of(error, location)
        raise DataError(fault, where=str(location), hint=hint) from None


def stem_of(relative: str) -> str:
    """A path without the suffixes of its format: `a/train` for a/train.csv.gz."""
    stem, suffix = posixpath.splitext(relative)
    return posixpath.splitext(stem)[0] if suffix.lower() in _COMPRESSED else stem


def _fault_of(error: OSError, location: Location) -> tuple[str, str]:
    """Why a file cannot be read, and the fix."""
    match store_fault(error) if location.store else None:
        case "no bucket":
            return f"the bucket {location.path.partition('/')[0]!r} does not exist", ""
        case "expired":
            return "the store's credentials have expired", "Renew them and start again: finished work is kept"
        case "refused" | "denied":
            hint = "Check the credentials in the environment, and the bucket's policy"
            return "no permission to read it", hint
        case "no answer":
            return "the store does not answer", "Check the network and the endpoint"
        case _:
            return f"cannot read it: {' '.join(str(error.strerror or error).split())[:200]}", ""


def _endpoint() -> str | None:
    """The S3 server in the environment variables of Amazon's own tools."""
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")


@lru_cache(maxsize=64)
def _file_system(store: str, endpoint: str | None) -> fs.FileSystem:
    if not store:
        return fs.LocalFileSystem()
    scheme, _, remainder = store.partition("://")
    bucket, _, query = remainder.partition("?")
    options = dict(parse_qsl(query))
    anonymous = options.get("anonymous", "").lower() == "true"
    if scheme != "s3":
        host = options.get("endpoint_override", "")
        return fs.GcsFileSystem(
            anonymous=anonymous,
            endpoint_override=host.rpartition("://")[2] or None,
            scheme=options.get("scheme") or ("http" if host.startswith("http://") else "https"),
            retry_time_limit=timedelta(seconds=_REQUEST_SECONDS),
        )
    endpoint = options.get("endpoint_override") or endpoint
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return fs.S3FileSystem(
        endpoint_override=endpoint,
        scheme=options.get("scheme") or ("http" if (endpoint or "").startswith("http://") else "https"),
        region=region or ("us-east-1" if endpoint else fs.resolve_s3_region(bucket)),
        anonymous=anonymous,
        connect_timeout=_CONNECT_SECONDS,
        request_timeout=_REQUEST_SECONDS,
    )


def _matches(parts: list[str], pattern: list[str]) -> bool:
    if not pattern:
        return not parts
    if pattern[0] == "**":
        return any(_matches(parts[start:], pattern[1:]) for start in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
