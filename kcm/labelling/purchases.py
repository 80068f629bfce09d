"""The units of one table: who is asked about them, which of them were bought, and how many more the money buys.

Shapes: U units, of `copies_U` equal rows each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from kcm.errors import DataError

if TYPE_CHECKING:  # a proxy of one's own needs no client of a server
    from kcm.large.adapters.openai import OpenAiConfig
    from kcm.large.base import Estimate
    from kcm.large.response_cache import ResponseStore

Units = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Guess:
    """What the small model would answer: codes of labels [U], and the probability that each is wrong [U]."""

    answer_U: Units
    wrong_U: NDArray[np.float64]


class SmallModel(Protocol):
    """The small model of one table."""

    def fit(self, units: Units, labels: Units) -> Guess:
        """Learn from the units bought so far and their labels, and guess every unit."""


FAILED = -1  # the code of a unit that the oracle gave no usable answer to


class NoAnswers(DataError):
    """The oracle answered nothing at all."""


class Oracle:
    """Whom a job asks about its units, each at most once.

    `identity` names what decides the answers. `estimate` is the price of asking about every unit, None if there is no
    price. With `is_capped`, money is limited. `resumable` says whether answers outlast the process, so that a job that
    was killed can go on. `server` and `store` are those of a server. `reasons` say why units have no answer.
    """

    identity = ""
    estimate: Estimate | None = None
    is_capped = False
    resumable = True
    server: OpenAiConfig | None = None
    store: ResponseStore | None = None

    def __init__(self) -> None:
        self.reasons: dict[int, str] = {}

    def __call__(self, units: Units) -> Units:
        """Codes of labels of these units, or `FAILED`."""
        raise NotImplementedError

    def ahead(self, units: Units) -> None:
        """Pay in bulk for units that are asked next, if that is cheaper."""

    def affords(self, units: Units) -> int:
        """How many of these units, in order, the money buys."""
        return len(units)

    def paid(self, units: Units) -> Units:
        """Those of the units that an earlier start has paid for, as far as that is known."""
        return units[:0]

    @property
    def spent(self) -> float:
        """Currency spent by this job."""
        return 0.0


class Purchases:
    """The answers bought so far: `label_U`, or `FAILED`, and `asked_U`; every unit is asked at most once.

    `tie_U` breaks ties between equally sure units.
    """

    def __init__(self, copies_U: Units, tie_U: NDArray[np.float64], oracle: Oracle) -> None:
        self.copies_U, self._tie, self.oracle = copies_U, tie_U, oracle
        self.label_U = np.full(len(copies_U), FAILED, dtype=np.int64)
        self.asked_U = np.zeros(len(copies_U), dtype=bool)

    def buy(self, units: Units) -> None:
        """Ask about those of the units that were not asked before. Raises what `ask` raises."""
        units = units[~self.asked_U[units]]
        if len(units):
            self.label_U[units] = self.oracle(units)
            self.asked_U[units] = True

    def buy_in_bulk(self, units: Units) -> None:
        """As `buy`, for a draw or for the rest that follows from it."""
        units = units[~self.asked_U[units]]
        if len(units):
            self.oracle.ahead(units)
            self.buy(units)

    def affordable(self, units: Units) -> Units:
        """As many of the units as the money buys."""
        return units[: self.oracle.affords(units)]

    @property
    def num_asked(self) -> int:
        """Units that were put to the oracle."""
        return int(self.asked_U.sum())

    @property
    def open_units(self) -> Units:
        """Units that were not asked."""
        return np.flatnonzero(~self.asked_U)

    @property
    def answered(self) -> Units:
        """Units with an answer."""
        return np.flatnonzero(self.label_U != FAILED)

    @property
    def failed(self) -> Units:
        """Units that the oracle gave no usable answer to."""
        return np.flatnonzero(self.asked_U & (self.label_U == FAILED))

    def rows(self, units: Units) -> int:
        """How many rows the units have."""
        return int(self.copies_U[units].sum())

    def surest(self, units: Units, guess: Guess) -> Units:
        """The units, the surest first."""
        return units[np.lexsort((self._tie[units], guess.wrong_U[units]))]

    def outside(self, kept: Units, guess: Guess) -> Units:
        """Units that are neither kept nor asked: they are to be escalated, the least sure first."""
        units = np.setdiff1d(self.open_units, kept)
        return units[np.lexsort((self._tie[units], -guess.wrong_U[units]))]
