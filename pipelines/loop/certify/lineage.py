"""The lineage's ledger: what every attempt to certify a challenger of one application may spend of one delta.

Attempt v spends 6 delta / (pi^2 v^2). These sum to delta over all attempts, so that all certificates that the loop ever
issues for an application hold together with probability 1 - delta. Attempts that failed count, and so do those of
earlier champions; a new window resets nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

from kcm.certify.ledger import look_delta
from pipelines.store.control.journal import Journal
from pipelines.store.control.records import Control


@dataclass(frozen=True)
class Spent:
    """One attempt: its number v, from 1, its name, the delta that all attempts share, and what this one may spend."""

    number: int
    attempt: str
    delta: float
    spend: float


class LineageLedger:
    """The attempts of an application, in the store's control records."""

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/ledger")

    def spend(self, attempt: str, delta: float) -> Spent:
        """Record an attempt, before its window is read; recording it again gives the same entry."""
        entry = self._journal.append(
            lambda number: asdict(Spent(number, attempt, delta, look_delta(delta, number))),
            same=lambda each: bool(each["attempt"] == attempt),
        )
        return Spent(**entry)

    def next_spend(self, delta: float) -> float:
        """What the next attempt would spend."""
        return look_delta(delta, len(self._journal.entries()) + 1)

    def attempts(self) -> list[Spent]:
        """All attempts, the first one first."""
        return [Spent(**entry) for entry in self._journal.entries()]
