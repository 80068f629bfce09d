"""The units of one table: which of them were bought, and how many more the money buys.

Shapes: U units, of `copies_U` equal rows each.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from kcm.errors import DataError
from kcm.labelling.guess import Guess, Units

FAILED = -1  # the code of a unit that the oracle gave no usable answer to


class NoAnswers(DataError):
    """The oracle answered nothing at all."""


class Money:
    """What a job may spend: `prices` gives the highest price of each unit [U], 0 for a paid unit."""

    def __init__(self, prices: Callable[[], NDArray[np.float64]], left: Callable[[], float]) -> None:
        self._prices, self._left = prices, left

    def affords(self, units: Units) -> int:
        """How many of these units, in order, can be bought at their highest price.

        Paid units cost nothing, so they are affordable even if a lowered cap is below what was spent.
        """
        total = np.cumsum(self._prices()[units])
        return int(np.searchsorted(total, max(0.0, self._left()) * (1 + 1e-12), side="right"))


class Purchases:
    """The answers bought so far: `label_U`, or `FAILED`, and `asked_U`; every unit is asked at most once.

    `ask` maps units to codes of labels, or `FAILED`. `ahead` may pay in bulk for units that are asked next. `tie_U`
    breaks ties between equally sure units. Without `money` there is no cap.
    """

    def __init__(
        self,
        copies_U: Units,
        tie_U: NDArray[np.float64],
        ask: Callable[[Units], Units],
        ahead: Callable[[Units], None],
        money: Money | None,
    ) -> None:
        self.copies_U, self._tie, self._ask, self._ahead, self._money = copies_U, tie_U, ask, ahead, money
        self.label_U = np.full(len(copies_U), FAILED, dtype=np.int64)
        self.asked_U = np.zeros(len(copies_U), dtype=bool)

    def buy(self, units: Units) -> None:
        """Ask about those of the units that were not asked before. Raises what `ask` raises."""
        units = units[~self.asked_U[units]]
        if len(units):
            self.label_U[units] = self._ask(units)
            self.asked_U[units] = True

    def buy_in_bulk(self, units: Units) -> None:
        """As `buy`, for a draw or for the rest that follows from it."""
        units = units[~self.asked_U[units]]
        if len(units):
            self._ahead(units)
            self.buy(units)

    @property
    def capped(self) -> bool:
        """Whether the money has a cap."""
        return self._money is not None

    def affords(self, units: Units) -> int:
        """How many of the units, in order, the money buys."""
        return len(units) if self._money is None else self._money.affords(units)

    def affordable(self, units: Units) -> Units:
        """As many of the units as the money buys."""
        return units[: self.affords(units)]

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
