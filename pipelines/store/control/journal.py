"""Journals: records that are only ever added to, in one order that all processes see; the ledger of looks is one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from kcm.certify.ledger import Look, Looks, look_delta
from kcm.errors import ArtefactError
from pipelines.store.control.records import Control

Entry = dict[str, Any]


class Journal:
    """The entries under one key, the oldest first; entry number v is version v of the key."""

    def __init__(self, control: Control, key: str) -> None:
        self._control, self._key = control, key

    def entries(self) -> list[Entry]:
        """All entries."""
        return [json.loads(each.value) for each in self._control.history(self._key)]

    def append(
        self, write: Callable[[int], Mapping[str, Any]], *, same: Callable[[Entry], bool] = lambda _: False
    ) -> Entry:
        """Add the entry that `write` makes of its number, unless one that is the `same` is there; give that entry.

        Two processes that append at once both succeed, one after the other.
        """
        while True:
            entries = self.entries()
            if found := next((entry for entry in entries if same(entry)), None):
                return found
            entry = dict(write(len(entries) + 1))
            if self._control.swap(self._key, len(entries), json.dumps(entry, allow_nan=False).encode()):
                return entry


class StoredLedger(Looks):
    """The ledger of looks in a bucket: a journal for each split, whose entry number v is look number v at it."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def open_look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """Write a look down and return it."""

        def look(number: int) -> Entry:
            return asdict(Look(fingerprint, number, delta, look_delta(delta, number), purpose))

        return Look(**self._journal(fingerprint).append(look))

    def looks(self, fingerprint: str) -> list[Look]:
        """All looks at a split so far, in order."""
        try:
            return [Look(**entry) for entry in self._journal(fingerprint).entries()]
        except (ValueError, TypeError):
            raise ArtefactError(
                "the ledger of looks is damaged",
                where=f"ledger/{fingerprint}",
                hint="Restore it, or certify on fresh rows",
            ) from None

    def _journal(self, fingerprint: str) -> Journal:
        return Journal(self._control, f"ledger/{fingerprint}")
