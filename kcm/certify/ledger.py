"""The ledger of looks at certify rows: every certificate on the same rows spends part of one delta.

Look number v at one certify split may spend delta_v = 6 delta / (pi^2 v^2); these sum to delta over all looks, so that
all certificates issued on the split hold together with probability 1 - delta. A look is written down before the rows
are read and counts whether or not it certifies anything. New certify rows start at v = 1.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from kcm.durable import replace_durably
from kcm.errors import ArtefactError, DataError


@dataclass(frozen=True)
class Look:
    """One look: its number on this split (from 1), what was asked for, and what it may spend."""

    fingerprint: str
    number: int
    delta: float
    spend: float
    purpose: str


def look_delta(delta: float, number: int) -> float:
    """6 delta / (pi^2 v^2) for look number v = 1, 2, ..."""
    return 6 * delta / (math.pi * number) ** 2


def split_fingerprint(ids: Iterable[str]) -> str:
    """SHA-256 of the certify rows' ids, whatever their order. Raises DataError when an id occurs twice."""
    ordered = sorted(ids)
    if len(set(ordered)) != len(ordered):
        raise DataError("an id occurs twice in the certify split", where="certify split")
    digest = hashlib.sha256()
    for row_id in ordered:
        encoded = row_id.encode()
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return digest.hexdigest()


class Looks(ABC):
    """What counts the looks at certify rows, shared safely between processes."""

    def look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """The look for `purpose`: an existing one where there is one, so that repeated work is the same look."""
        earlier = (look for look in self.looks(fingerprint) if look.purpose == purpose)
        return next(earlier, None) or self.open_look(fingerprint, delta, purpose)

    @abstractmethod
    def open_look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """Write a look down and return it; to be called before any certify outcome is read.

        `purpose` says what is to be certified. Raises ArtefactError when what was written down is damaged.
        """

    @abstractmethod
    def looks(self, fingerprint: str) -> list[Look]:
        """All looks at a split so far, in order."""


class Ledger(Looks):
    """A JSON file of looks by fingerprint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open_look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """Write a look down and return it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            looks = self._read()
            number = 1 + sum(look["fingerprint"] == fingerprint for look in looks)
            look = Look(fingerprint, number, delta, look_delta(delta, number), purpose)
            self._write([*looks, asdict(look)])
        return look

    def looks(self, fingerprint: str) -> list[Look]:
        """All looks at a split so far, in order."""
        return [Look(**look) for look in self._read() if look["fingerprint"] == fingerprint]

    def _read(self) -> list[dict[str, Any]]:
        try:
            looks = json.loads(self.path.read_text(encoding="utf-8"))
            [Look(**look) for look in looks]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            raise ArtefactError(
                "the ledger of looks is damaged", where=str(self.path), hint="Restore it, or certify on fresh rows"
            ) from None
        return list(looks)

    def _write(self, looks: list[dict[str, Any]]) -> None:
        """Replace the file durably."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with draft.open("w", encoding="utf-8") as file:
            json.dump(looks, file, indent=1)
        replace_durably(draft, self.path)
