"""A storage, and the folder of this node where its files are read and written by path.

Of a storage that is a folder, seen by all nodes, they are the same. A bucket has a folder on each node, below
`KCM_CACHE`, else the user's cache folder: files are written there and then kept (`keep`), and fetched on first use
(`fetch`). It has the same path on every node, so that paths travel. A file in it is whole; what an artefact holds never
changes, so it can be used again, and removed whenever nothing runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pipelines.store.files import Files, LocalFiles, StorageError, digest
from pipelines.store.objects import files_at, normalised

AT_ONCE = 16  # requests for small things that are sent together


@dataclass(frozen=True)
class Kept:
    """A file of a storage, by its path in a node's folder, and its SHA-256 as whoever wrote it noted it."""

    path: Path
    sha256: str


@dataclass(frozen=True)
class Storage:
    """The files of a storage, and the folder of this node for them; any process may hold a copy."""

    files: Files
    root: Path

    @classmethod
    def at(cls, place: str | Path) -> Storage:
        """The storage of a storage path."""
        files = files_at(normalised(place))
        if isinstance(files, LocalFiles):
            return cls(files, files.root)
        return cls(files, cache_folder() / hashlib.sha256(files.uri.encode()).hexdigest()[:16])

    @property
    def is_remote(self) -> bool:
        """Whether its files are somewhere else than in the folder of this node."""
        return self.files.uri != str(self.root)

    def below(self, path: Path) -> Storage:
        """The part of the storage below a path of the folder."""
        return Storage(self.files.below(self.name(path)), path)

    def name(self, path: Path) -> str:
        """The name of a path of the folder in the storage."""
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def keep(self, path: Path) -> None:
        """Make a file, or all files of a folder, part of the storage: they outlive this node."""
        if not self.is_remote:
            return
        paths = [each for each in sorted(path.rglob("*")) if each.is_file()] if path.is_dir() else [path]
        for each in paths:
            self.files.put(self.name(each), each, digest(each))

    def hand_over(self, path: Path) -> Kept:
        """Keep a file that this node needs no more: of a bucket it is gone here."""
        kept = Kept(path, digest(path))
        if self.is_remote:
            self.files.put(self.name(path), path, kept.sha256)
            self.leave(path)
        return kept

    def leave(self, path: Path) -> None:
        """Have a file of a bucket no longer here."""
        if self.is_remote:
            path.unlink(missing_ok=True)

    def known(self, path: Path) -> Kept:
        """A file that the storage holds, which is not fetched where its hash was noted."""
        return Kept(path, self.files.noted_sha256(self.name(path)))

    def place(self, kept: Mapping[str, Kept], folder: Path) -> dict[str, str]:
        """Give files names below a folder too, without a byte passing through this node; their hashes by name."""

        def copy(name: str) -> None:
            self.files.copy(self.name(kept[name].path), self.name(folder / name))

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(copy, kept))
        return {name: each.sha256 for name, each in kept.items()}

    def readable(self, path: Path) -> Path | BinaryIO:
        """What pyarrow is given to read a file, of which only what is read is fetched where it is not here.

        FileNotFoundError where it is not in the storage either.
        """
        return path if path.is_file() else self.files.open(self.name(path))

    def fetch(self, path: Path) -> Path:
        """The path of a file that the storage holds, which is here from now on. FileNotFoundError where it is not."""
        if not path.is_file() and self.is_remote:
            path.parent.mkdir(parents=True, exist_ok=True)
            draft = path.with_name(f".{uuid.uuid4().hex}")  # another process may be at it too
            try:
                self.files.get(self.name(path), draft)
                draft.replace(path)
            finally:
                draft.unlink(missing_ok=True)
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def mirror(self, folder: Path) -> None:
        """Make a folder here hold exactly the files that the storage has below it."""
        if not self.is_remote:
            return
        for path in self._prune(folder):
            self.fetch(path)

    def forget(self, folder: Path) -> None:
        """Remove what a folder here holds and the storage has not: it was never kept."""
        if self.is_remote:
            self._prune(folder)

    def _prune(self, folder: Path) -> set[Path]:
        there = {self.root / stat.name for stat in self.files.list(self.name(folder))}
        for path in folder.rglob("*") if folder.exists() else ():
            if path.is_file() and path not in there:
                path.unlink()
        return there

    def names(self, folder: Path) -> list[str]:
        """The names, relative to a folder, of the files that the storage has below it."""
        above = self.name(folder)
        return [os.path.relpath(stat.name, above) if above else stat.name for stat in self.files.list(above)]

    def drop(self, paths: Iterable[Path]) -> None:
        """Remove files and folders, here and in the storage."""
        for path in paths:
            if self.is_remote:
                below = [stat.name for stat in self.files.list(self.name(path))]
                self.files.delete(below or [self.name(path)])
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


class Follower:
    """Keeps what another writes below a folder: each file once it has stopped changing between two looks."""

    def __init__(self, storage: Storage, folder: Path) -> None:
        self._storage, self._folder = storage, folder
        self._seen: dict[Path, tuple[int, int]] = {}
        self._kept: dict[Path, tuple[int, int]] = {}
        self._looked = float("-inf")

    def look(self) -> None:
        """Keep what has stopped changing, unless the last look was just now; what cannot be kept waits for the next."""
        if not self._storage.is_remote or time.monotonic() - self._looked < self._storage.files.poll_s:
            return
        for path in sorted(self._folder.rglob("*")):
            with suppress(FileNotFoundError, StorageError):
                if not path.is_file():
                    continue
                known = path.stat()
                state = (known.st_size, known.st_mtime_ns)
                if self._seen.get(path) == state != self._kept.get(path):
                    self._storage.keep(path)
                    self._kept[path] = state
                self._seen[path] = state
        self._looked = time.monotonic()


def cache_folder() -> Path:
    """The folder of this node for what buckets hold."""
    if chosen := os.environ.get("KCM_CACHE"):
        return Path(chosen).absolute() / "storage"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache").absolute() / "kcm" / "storage"
