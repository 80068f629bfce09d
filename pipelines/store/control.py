"""Small records that several processes may write: create if absent, compare and swap.

Every value of a key is a file of its own, named by its version, and a version is made by linking a finished file to a
name that must not exist: two writers of the same version cannot both win, and a reader sees whole values only. That
needs no lock and no clock, and holds on every file system with hard links, network ones among them. Versions count
from 1; a compare-and-swap is the creation of the next one.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kcm.durable import create_durably
from kcm.errors import ArtefactError

KEEP = 16  # versions of a key that `prune` leaves: readers are never that far behind


@dataclass(frozen=True)
class Versioned:
    """A value and its version, which a compare-and-swap has to name; version 0 is the absence of a value."""

    version: int
    value: bytes


class Control:
    """The records below one folder, by key: parts of [A-Za-z0-9._-] joined by slashes."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, key: str) -> Versioned | None:
        """The newest value of a key, None where it has none."""
        for version in sorted(self._versions(key), reverse=True):
            with suppress(FileNotFoundError):  # pruned since it was listed, so there is a newer one
                return Versioned(version, self._file(key, version).read_bytes())
        return None if not self._versions(key) else self.get(key)

    def create(self, key: str, value: bytes) -> bool:
        """Write the first value of a key; False, and nothing is changed, where it has one."""
        return self.swap(key, 0, value)

    def swap(self, key: str, version: int, value: bytes) -> bool:
        """Replace the value of which `version` was read; False, and nothing is changed, where a newer one is there.

        The value is on disk before this returns. Raises ArtefactError on a file system without hard links.
        """
        newest = max(self._versions(key), default=0)
        if newest != version:
            return False
        target = self._file(key, version + 1)
        try:
            return create_durably(target, value)
        except PermissionError as error:  # what Linux says of a file system that has no hard links
            raise ArtefactError(
                f"cannot link files: {error.strerror}", where=str(target.parent), mend="Choose another storage_path"
            ) from error

    def history(self, key: str) -> list[Versioned]:
        """The values of a key that are still there, the oldest first."""
        found = []
        for version in sorted(self._versions(key)):
            with suppress(FileNotFoundError):
                found.append(Versioned(version, self._file(key, version).read_bytes()))
        return found

    def prune(self, key: str) -> None:
        """Forget all but the newest values of a key that is written again and again."""
        for version in sorted(self._versions(key))[:-KEEP]:
            self._file(key, version).unlink(missing_ok=True)

    def _versions(self, key: str) -> list[int]:
        folder = self._root / key
        try:
            return [int(name) for name in os.listdir(folder) if name.isdecimal()]
        except FileNotFoundError:
            return []

    def _file(self, key: str, version: int) -> Path:
        return self._root / key / f"{version:012d}"
