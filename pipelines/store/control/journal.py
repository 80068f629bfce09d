"""Journals: append-only records in one order that all processes see, such as the looks of a lineage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Self

from kcm.certification.ledger import Look, look_delta
from kcm.errors import ArtefactError
from pipelines.store.control.records import Control, Versioned

Entry = dict[str, Any]


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
