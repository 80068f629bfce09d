"""Small records that several processes may write: create if absent, compare and swap.

Every value of a key is a file of its own, named by its version. A version is made by creating a file that must not
exist (`Files.create`), so two writers of the same version cannot both win, and a reader sees whole values only. This
needs no lock and no clock, and works on every file system with hard links and every bucket with conditional puts.
Versions count from 1; a compare-and-swap creates the next one.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from kcm.errors import ArtefactError
from pipelines.store.files import Files

KEEP = 16  # versions of a key that `prune` keeps: readers are never that far behind


@dataclass(frozen=True)
class Versioned:
    """A value and its version, which a compare-and-swap must name; version 0 means that there is no value."""

    version: int
    value: bytes


class Control:
    """The records below one place, a folder or files, by key: parts of [A-Za-z0-9._-] joined by slashes."""

    def __init__(self, place: Path | Files) -> None:
        self._files = place if isinstance(place, Files) else Files.at(place)

    @property
    def uri(self) -> str:
        """The location of the records."""
        return self._files.uri

    @property
    def poll_s(self) -> float:
        """Seconds between two reads of a record."""
        return max(0.1, self._files.poll_s)

    def get(self, key: str) -> Versioned | None:
        """The newest value of a key; None if it has none."""
        while versions := self._versions(key):
            for version in sorted(versions, reverse=True):
                with suppress(FileNotFoundError):  # pruned since the listing, so there is a newer version
                    return Versioned(version, self._files.read(_name(key, version)))
        return None

    def create(self, key: str, value: bytes) -> bool:
        """Write the first value of a key; False, and nothing changes, if it has one."""
        return self.swap(key, 0, value)

    def swap(self, key: str, version: int, value: bytes) -> bool:
        """Replace the value whose `version` was read; False, and nothing changes, if there is a newer value.

        The value is durable before this returns. Raises ArtefactError on a file system without hard links.
        """
        if max(self._versions(key), default=0) != version:
            return False
        name = _name(key, version + 1)
        try:
            if not self._files.create(name, value):
                return False
        except PermissionError as error:  # errno on Linux for a file system without hard links
            raise ArtefactError(
                f"cannot link files: {error.strerror}", where=self._files.uri, hint="Choose another storage_path"
            ) from error
        if self._was_overtaken(key, version):
            self._files.delete([name])
            return False
        return True

    def history(self, key: str) -> list[Versioned]:
        """The values of a key that still exist, oldest first."""
        versions = []
        for version in sorted(self._versions(key)):
            with suppress(FileNotFoundError):
                versions.append(Versioned(version, self._files.read(_name(key, version))))
        return versions

    def keys(self, prefix: str = "") -> list[str]:
        """The keys with values below another key."""
        return sorted({stat.name.rpartition("/")[0] for stat in self._files.list(prefix)})

    def prune(self, key: str) -> None:
        """Delete all but the newest values of a key that is written repeatedly."""
        self._files.delete(_name(key, version) for version in sorted(self._versions(key))[:-KEEP])

    def forget(self, key: str) -> None:
        """Remove a key that only one process writes."""
        self._files.delete([_name(key, version) for version in self._versions(key)])

    def _was_overtaken(self, key: str, version: int) -> bool:
        """Whether other processes wrote and pruned so much that the version after `version` became free again.

        Older versions are pruned first: while `version` exists, the next version was never written.
        """
        versions = self._versions(key)
        return max(versions, default=0) > KEEP and version not in versions

    def _versions(self, key: str) -> list[int]:
        names = (stat.name.rpartition("/") for stat in self._files.list(key))
        return [int(name) for record_key, _, name in names if record_key == key and name.isdecimal()]


def _name(key: str, version: int) -> str:
    return f"{key}/{version:012d}"
