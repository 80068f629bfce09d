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
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

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


class Ledger:
    """A JSON file of looks by fingerprint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def look(self, fingerprint: str, delta: float, purpose: str) -> Look:
        """The look for `purpose`, which says what is to be certified; to be asked for before an outcome is read.

        An existing one where there is one, so that repeated work is the same look; else it is written down. Raises
        ArtefactError when what was written down is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self.path}.lock"):
            looks = self._read()
            same_rows = [look for look in looks if look.fingerprint == fingerprint]
            if found := next((look for look in same_rows if look.purpose == purpose), None):
                return found
            number = len(same_rows) + 1
            look = Look(fingerprint, number, delta, look_delta(delta, number), purpose)
            self._write([*looks, look])
        return look

    def _read(self) -> list[Look]:
        try:
            return [Look(**look) for look in json.loads(self.path.read_text(encoding="utf-8"))]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError):
            raise ArtefactError(
                "the ledger of looks is damaged", where=str(self.path), hint="Restore it, or certify on fresh rows"
            ) from None

    def _write(self, looks: list[Look]) -> None:
        """Replace the file durably."""
        draft = self.path.with_name(f"{self.path.name}.{os.getpid()}")
        with draft.open("w", encoding="utf-8") as file:
            json.dump([asdict(look) for look in looks], file, indent=1)
        replace_durably(draft, self.path)
