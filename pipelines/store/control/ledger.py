"""The ledger of looks in a bucket: an object for each look, numbered by the looks at the same rows."""

from __future__ import annotations

import json
from dataclasses import asdict

from kcm.certify.ledger import Look, Looks, look_delta
from kcm.errors import ArtefactError
from pipelines.store.control.records import Control


class StoredLedger(Looks):
    """Looks as records: version v of a split's key is look number v at it, and is created once."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def open_look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """Write a look down and return it."""
        while True:
            number = len(self.looks(fingerprint)) + 1
            look = Look(fingerprint, number, delta, look_delta(delta, number), purpose)
            if self._control.swap(_key(fingerprint), number - 1, json.dumps(asdict(look)).encode()):
                return look

    def looks(self, fingerprint: str) -> list[Look]:
        """All looks at a split so far, in order."""
        try:
            return [Look(**json.loads(each.value)) for each in self._control.history(_key(fingerprint))]
        except (ValueError, TypeError):
            raise ArtefactError(
                "the ledger of looks is damaged",
                where=_key(fingerprint),
                hint="Restore it, or certify on fresh rows",
            ) from None


def _key(fingerprint: str) -> str:
    return f"ledger/{fingerprint}"
