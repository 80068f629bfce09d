"""Files by name below a URI: a folder that all nodes see, or a prefix of a bucket.

Both kinds can create a file unless it is there, which is all that leases, manifests, the ledger and the champion
pointer need (`pipelines.store.control`): a folder by hard links, a bucket by conditional puts. A file of a bucket is
whole or absent; so is one of a folder that was written by these methods.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

from kcm.durable import create_durably
from kcm.errors import ArtefactError

_DRAFT = re.compile(r"\.[0-9a-f]{32}")  # a file of a folder that is being written


class StorageError(ArtefactError):
    """A storage that cannot be reached or used."""


@dataclass(frozen=True)
class Stat:
    """A file as a listing has it; `mark` changes whenever its content may have changed."""

    name: str
    size: int
    mark: str
    modified: float  # seconds since 1970, by the clock of the storage


class Files(ABC):
    """Files by name (parts joined by slashes) below a URI; any process may hold a copy."""

    poll_s: ClassVar[float]  # between two looks at a file that another process writes

    @property
    @abstractmethod
    def uri(self) -> str:
        """Where they lie."""

    @abstractmethod
    def below(self, name: str) -> Files:
        """The files below a name."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there; False, and nothing is changed, where it is. Of many writers one succeeds."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Write a file, or replace it."""

    @abstractmethod
    def put(self, name: str, source: Path, sha256: str) -> None:
        """Write a file with the content of a local one, or replace it."""

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The content. FileNotFoundError where there is no such file."""

    @abstractmethod
    def get(self, name: str, target: Path) -> None:
        """Write the content to a local file. FileNotFoundError where there is no such file."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """The content, of which only what is read is fetched. FileNotFoundError where there is no such file."""

    @abstractmethod
    def copy(self, name: str, target: str) -> None:
        """Give a file, which nobody writes to any more, another name too, by the storage itself.

        FileNotFoundError where there is no such file.
        """

    @abstractmethod
    def list(self, name: str = "") -> Iterator[Stat]:
        """The files below a name, at any depth, in no order."""

    @abstractmethod
    def sha256(self, name: str) -> str:
        """The SHA-256 of the content, read anew. FileNotFoundError where there is no such file."""

    @abstractmethod
    def noted_sha256(self, name: str) -> str:
        """The SHA-256 that was noted when the file was written, where the storage keeps one; else read anew."""

    @abstractmethod
    def delete(self, names: Iterable[str]) -> None:
        """Remove files; those that are not there are passed over."""

    @abstractmethod
    def local(self, name: str) -> Any:
        """A context with the path of a local file with the content. FileNotFoundError where there is no such file."""


@dataclass(frozen=True)
class LocalFiles(Files):
    """Files of a folder that all nodes see. Raises OSError."""

    root: Path
    poll_s: ClassVar[float] = 0.0

    @property
    def uri(self) -> str:
        """The folder."""
        return str(self.root)

    def below(self, name: str) -> Files:
        """The files of a folder in it."""
        return LocalFiles(self.root / name)

    def create(self, name: str, content: bytes) -> bool:
        """Write a file that is not there, on disk before this returns."""
        return create_durably(self.root / name, content)

    def write(self, name: str, content: bytes) -> None:
        """Write a file so that a reader sees the old one or the new one."""
        with self._draft(name) as draft:
            draft.write_bytes(content)

    def put(self, name: str, source: Path, sha256: str) -> None:
        """Copy a file here."""
        with self._draft(name) as draft:
            shutil.copyfile(source, draft)

    def read(self, name: str) -> bytes:
        """The content."""
        return (self.root / name).read_bytes()

    def get(self, name: str, target: Path) -> None:
        """Copy a file from here."""
        shutil.copyfile(self.root / name, target)

    def open(self, name: str) -> BinaryIO:
        """The file itself."""
        return (self.root / name).open("rb")

    def copy(self, name: str, target: str) -> None:
        """Link a file, or copy it where the file system cannot link."""
        with self._draft(target) as draft:
            try:
                os.link(self.root / name, draft)
            except FileNotFoundError:
                raise
            except OSError:
                shutil.copyfile(self.root / name, draft)

    def list(self, name: str = "") -> Iterator[Stat]:
        """The files below a folder; the mark is the time of the last change in nanoseconds."""
        folders = [self.root / name]
        while folders:
            with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if _DRAFT.fullmatch(entry.name):
                        continue
                    if entry.is_dir():
                        folders.append(Path(entry.path))
                        continue
                    with suppress(FileNotFoundError):  # removed since it was listed
                        known = entry.stat()
                        path = os.path.relpath(entry.path, self.root)
                        yield Stat(path, known.st_size, str(known.st_mtime_ns), known.st_mtime)

    def sha256(self, name: str) -> str:
        """The SHA-256 of the content."""
        return digest(self.root / name)

    def noted_sha256(self, name: str) -> str:
        """The SHA-256 of the content: a folder keeps no notes."""
        return self.sha256(name)

    def delete(self, names: Iterable[str]) -> None:
        """Remove files, and the folders that this leaves empty."""
        for name in names:
            (self.root / name).unlink(missing_ok=True)
            for folder in (self.root / name).parents:
                if folder == self.root:
                    break
                try:
                    folder.rmdir()
                except OSError:
                    break

    @contextmanager
    def local(self, name: str) -> Iterator[Path]:
        """The file itself."""
        if not (self.root / name).is_file():
            raise FileNotFoundError(name)
        yield self.root / name

    @contextmanager
    def _draft(self, name: str) -> Iterator[Path]:
        target = self.root / name
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f".{uuid.uuid4().hex}")
        try:
            yield draft
            draft.replace(target)
        finally:
            draft.unlink(missing_ok=True)


def digest(path: Path) -> str:
    """The SHA-256 of a local file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
