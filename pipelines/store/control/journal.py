"""Journals: records that are only ever added to, in one order that all processes see."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

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
