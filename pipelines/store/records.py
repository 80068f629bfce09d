"""Small records that several processes may write: create if absent, compare and swap.

Every value of a key is a file of its own, named by its version. A version is made by creating a file that must not
exist (`Files.create`), so two writers of the same version cannot both win, and a reader sees whole values only. This
needs no lock and no clock, and works on every file system with hard links and every bucket with conditional puts.
Versions count from 1; a compare-and-swap creates the next one.

A journal is a key that only grows: its entries have one order that all processes see.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from kcm.certification.ledger import Look, look_delta
from kcm.errors import ArtefactError
from pipelines.store.files import Files

Entry = dict[str, Any]  # of a journal
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


class Journal:
    """The entries under one key, oldest first; entry number v is version v of the key."""

    def __init__(self, control: Control, key: str) -> None:
        self._control, self._key = control, key

    def entries(self) -> list[Entry]:
        """All entries."""
        return [json.loads(version.value) for version in self._control.history(self._key)]

    def append(
        self, write: Callable[[int], Mapping[str, Any]], *, same: Callable[[Entry], bool] = lambda _: False
    ) -> Entry:
        """Add the entry that `write` makes from its number, unless an entry that is the `same` exists; returns it.

        Two processes that append concurrently both succeed, one after the other. Raises ArtefactError if an entry is
        missing.
        """
        history: list[Versioned] = []
        while True:
            before, history = history, self._control.history(self._key)
            if history and history[-1].version > len(history) and history == before:  # changed while it was read
                where, hint = f"{self._control.uri}/{self._key}", "Restore it from a backup"
                raise ArtefactError("an entry of a journal is missing", where=where, hint=hint)
            entries = [json.loads(version.value) for version in history]
            if entry_before := next((entry for entry in entries if same(entry)), None):
                return entry_before
            entry = dict(write(len(entries) + 1))
            if self._control.swap(self._key, len(entries), json.dumps(entry, allow_nan=False).encode()):
                return entry


class StoredLedger:
    """How much of one delta each attempt to certify a challenger of an application may spend: a journal in a storage.

    Attempt v spends 6 delta / (pi^2 v^2). The sum over all attempts is delta, so all certificates that the loop ever
    issues for an application hold together with probability 1 - delta. Failed attempts count, and so do attempts under
    earlier champions; a new window resets nothing. A window with too few units for any certificate is not an attempt.
    """

    def __init__(self, control: Control, name: str) -> None:
        self._name, self._key = name, f"ledger/{name}"
        self._journal = Journal(control, self._key)

    @classmethod
    def of_lineage(cls, control: Control, application: str) -> Self:
        """The attempts of an application, on any window."""
        return cls(control, f"lineage/{application}")

    def look(self, delta: float, digest: str) -> Look:
        """The look of one attempt, recorded unless it already is."""

        def opened(number: int) -> Entry:
            return asdict(Look(self._name, number, delta, look_delta(delta, number), digest))

        self.looks()  # refuses a damaged one
        return Look.of(self._journal.append(opened, same=lambda entry: bool(entry["digest"] == digest)))

    def next_spend(self, delta: float, digest: str = "") -> float:
        """What a look would spend: the recorded value for its digest, or else what the next look may spend."""
        looks = self.looks()
        spends = (look.spend for look in looks if look.digest == digest)
        return next(spends, look_delta(delta, len(looks) + 1))

    def looks(self) -> list[Look]:
        """All looks so far, in order. ArtefactError if the record is damaged."""
        try:
            return [Look.of(entry) for entry in self._journal.entries()]
        except (ValueError, TypeError, KeyError):
            hint = "Restore it, or certify on fresh rows"
            raise ArtefactError("the ledger of looks is damaged", where=self._key, hint=hint) from None
