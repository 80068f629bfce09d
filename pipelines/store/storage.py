"""A storage, and this node's folder through which its files are read and written by path.

If the storage is a folder that all nodes see, it is that folder. A bucket has a folder on each node, below `KCM_CACHE`
or else the user's cache folder: files are written there and uploaded, and fetched on first use. The folder has the same
path on every node, so paths can be sent to workers. Its files are whole and an artefact never changes, so fetched files
are reused. The folder may be removed whenever nothing runs.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeVar

from kcm.inputs.location import cache_folder
from kcm.local_files import drafted
from pipelines.store.files import Files, Stat, StorageError

_AT_ONCE = 16  # small requests sent concurrently
ItemT = TypeVar("ItemT")
ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Storage:
    """The files of a storage, and this node's folder for them; any process may hold a copy."""

    files: Files
    root: Path

    @classmethod
    def at(cls, place: str | Path) -> Storage:
        """The storage of a storage path."""
        files = Files.at(place)
        if not files.is_remote:
            return cls(files, Path(files.uri))
        return cls(files, cache_folder() / "storage" / hashlib.sha256(files.uri.encode()).hexdigest()[:16])

    @property
    def is_remote(self) -> bool:
        """Whether the files are in a bucket."""
        return self.files.is_remote

    def below(self, path: Path) -> Storage:
        """The part of the storage below a path of the folder."""
        return Storage(self.files.below(self.name(path)), path)

    def name(self, path: Path) -> str:
        """The storage's name for a path of the folder."""
        name = path.relative_to(self.root).as_posix()
        return "" if name == "." else name

    def where(self, path: Path) -> str:
        """The location of a path in the storage, for people: the path, or its URI."""
        return f"{self.files.uri}/{self.name(path)}" if self.is_remote else str(path)

    def keep(self, path: Path) -> None:
        """Upload a file of the node's folder, or all files of a folder in it, so they outlive this node."""
        if self.is_remote:
            for file in [file for file in sorted(path.rglob("*")) if file.is_file()] if path.is_dir() else [path]:
                self.files.put(self.name(file), file)

    def hand_over(self, path: Path) -> None:
        """Upload a file, then delete the local copy, which is no longer needed."""
        if self.is_remote:
            self.files.put(self.name(path), path)
            path.unlink()

    def place(self, paths: Mapping[str, Path], folder: Path) -> None:
        """Copy files of the storage to new names below a folder within it."""

        def copy(name: str) -> None:
            self.files.copy(self.name(paths[name]), self.name(folder / name))

        at_once(copy, paths)

    def readable(self, path: Path) -> Path | BinaryIO:
        """A source that pyarrow can read; from a remote object, only the ranges that are read are fetched.

        FileNotFoundError if the storage does not hold it either.
        """
        return path if path.is_file() else self.files.open(self.name(path))

    def fetch(self, path: Path, sha256: str | None = None) -> Path:
        """The local path of a file of the storage, fetched if needed. FileNotFoundError if there is none.

        StorageError if a fetched file has another hash than `sha256`.
        """
        if not path.is_file() and self.is_remote:
            with drafted(path) as draft:  # another process may fetch it too
                fetched = self.files.get(self.name(path), draft)
                if sha256 not in (None, fetched):
                    hint = "Remove the folder of its artefact, and start again"
                    raise StorageError("the file is not what its manifest says", where=str(path), hint=hint)
        if not path.is_file():
            raise FileNotFoundError(path)
        return path

    def forget(self, folder: Path) -> None:
        """Delete local files of a folder that the bucket does not hold."""
        if not self.is_remote:
            return
        stored_paths = {self.root / stat.name for stat in self.files.list(self.name(folder))}
        for path in folder.rglob("*") if folder.exists() else ():
            if path.is_file() and path not in stored_paths:
                path.unlink()

    def listed(self, folder: Path) -> dict[str, Stat]:
        """The files that the storage has below a folder, by relative name."""
        folder_name = self.name(folder)
        return {os.path.relpath(stat.name, folder_name or "."): stat for stat in self.files.list(folder_name)}

    def names(self, folder: Path) -> list[str]:
        """The names of these files."""
        return list(self.listed(folder))

    def drop(self, paths: Iterable[Path]) -> None:
        """Remove files and folders, locally and in the storage."""
        for path in paths:
            if self.is_remote:
                file_names = [stat.name for stat in self.files.list(self.name(path))]
                self.files.delete(file_names or [self.name(path)])
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def at_once(function: Callable[[ItemT], ResultT], items: Iterable[ItemT]) -> list[ResultT]:
    """The results of small requests to a storage, in order, several at a time."""
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(function, items))


THIS_NODE = Storage.at("/")  # in which every file of this node has a name
