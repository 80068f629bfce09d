"""What the promise of one table is expected to cost, from the units bought so far and the small model's guess.

A forecast decides what is bought, never what is proved. Shapes: U units; M units that may be kept, in the order of the
ranking.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.certification.finite import allowed_errors
from kcm.labelling.guarantees import MAX_COPIES, ClassPlan, Guarantee, class_plan, relevant, too_rare
from kcm.labelling.plan import CappedPlan, DrawPlan, capped_plan, cheapest_plan
from kcm.labelling.purchases import Guess, Purchases, Units

RESERVED = 0.1  # share of delta for the prefix that is left if the money ends after the draw
_MAX_COPIES = (1, 2, 3, 5, 10)
_PRIOR_ANSWERED = 50  # rows with an answer: two failures of 50 units are mostly bad luck


@dataclass(frozen=True)
class Promise:
    """At least a share `target` of the answers agrees with the oracle, with probability at least 1 - `delta`.

    Each of the `guarantees` holds with the same probability; without a target they are all that is promised.
    """

    target: float | None
    delta: float
    guarantees: tuple[Guarantee, ...] = ()


@dataclass(frozen=True, eq=False)
class Forecast:
    """What is planned after a round, in units.

    Units with more than `copies` copies are bought in any case; there are `extra` of them. No unit with a label of the
    guarantees `rare` was bought yet: they cannot be proved, and are given up. `reserve` rows are set aside for further
    failures. `expected` are the calls until training ends and in all, with what further rounds will learn; None where
    none follow. `promised` is the share of rows that is expected to be proved to agree, with the money that is left;
    None if agreement is not promised.
    """

    bought: int
    copies: int
    extra: int
    plan: DrawPlan
    rare: tuple[Guarantee, ...] = ()
    reserve: int = 0
    expected: tuple[float, float] | None = None
    promised: float | None = None

    @property
    def calls(self) -> float:
        """Expected further calls, if training ends now."""
        return self.extra + self.plan.calls

    @property
    def total(self) -> float:
        """Expected calls in all."""
        return self.bought + self.calls if self.expected is None else self.expected[1]

    @property
    def trained(self) -> float:
        """Expected calls until training ends."""
        return self.bought if self.expected is None else self.expected[0]


class Forecaster:
    """Forecasts for a promise of `target` and `guarantees` on the units of `purchases`.

    At most `allowed` rows may differ.
    """

    def __init__(self, purchases: Purchases, target: float | None, guarantees: tuple[Guarantee, ...]) -> None:
        self._purchases, self._agrees, self._guarantees = purchases, target is not None, guarantees
        self.num_rows = int(purchases.copies_U.sum())
        self.allowed = self.num_rows if target is None else allowed_errors(target, self.num_rows)

    def forecast(self, guess: Guess, delta: float, allowed: int | None = None) -> Forecast:
        """The cheapest plan over the copies that a unit may have without being bought; `allowed` for another target."""
        if not self._agrees:
            return self._class_forecast(guess, delta)
        allowed = self.allowed if allowed is None else allowed
        delta -= self.spare(delta)
        copies = self._purchases.copies_U[self._purchases.open_units]
        highest = int(copies.max(initial=1))
        forecasts = []
        for most in sorted({min(limit, highest) for limit in _MAX_COPIES}):
            ranked = self.ranked(guess, most)
            extra, wrong_M = len(copies) - len(ranked), self._wrong(guess, ranked)
            reserve = self._reserve(extra, allowed)
            plan = cheapest_plan(wrong_M, (allowed - reserve) // most, delta)
            while (further := self._reserve(extra + plan.calls, allowed)) > reserve:  # what the plan buys may fail too
                reserve = further
                plan = cheapest_plan(wrong_M, (allowed - reserve) // most, delta)
            forecasts.append(Forecast(self._purchases.num_asked, most, extra, plan, self._rare(), reserve))
        return min(forecasts, key=lambda forecast: forecast.total)

    def _class_forecast(self, guess: Guess, delta: float) -> Forecast:
        """The plan of guarantees alone."""
        open_units = self._purchases.open_units
        ranked, classes = self.class_plan(guess, open_units, delta)
        extra = int(relevant(guess.answer_U, self.pursued())[open_units].sum()) - len(ranked)
        kept = len(open_units) - extra - classes.calls
        plan = DrawPlan(classes.length, sum(classes.sizes.values()), 0, kept, classes.calls)
        return Forecast(self._purchases.num_asked, MAX_COPIES, extra, plan, self._rare())

    def promised(self, guess: Guess, forecast: Forecast, delta: float) -> float | None:
        """The share of rows that is expected to be proved to agree."""
        if not self._agrees:
            return None
        if not self.is_short(guess, forecast):
            return 1 - self.allowed / self.num_rows
        ranked, copies, plan = self.capped_plan(guess, delta)
        calls = plan.num_drawn + len(ranked) - plan.num_kept
        differ = copies * plan.errors + self._reserve(calls, self.num_rows)
        return 1 - min(self.num_rows, differ) / self.num_rows

    def capped_plan(self, guess: Guess, delta: float) -> tuple[Units, int, CappedPlan]:
        """The ranking, the most copies that a unit has, and the plan of a budget that does not cover the forecast."""
        copies = int(self._purchases.copies_U[self._purchases.open_units].max(initial=1))
        ranked, affordable = self.ranked(guess, copies), self._purchases.oracle.affords(self._from_the_end(guess, 1))
        return ranked, copies, capped_plan(self._wrong(guess, ranked), affordable, delta)

    def class_plan(self, guess: Guess, units: Units, delta: float) -> tuple[Units, ClassPlan]:
        """Those of the units that matter to a guarantee and may be kept, the surest first, and the plan for them."""
        pursued, purchases = self.pursued(), self._purchases
        matters = ~purchases.asked_U & (purchases.copies_U <= MAX_COPIES) & relevant(guess.answer_U, pursued)
        ranked = purchases.surest(units[matters[units]], guess)
        bought = purchases.label_U[purchases.answered]
        return ranked, class_plan(ranked, guess.answer_U, guess.wrong_U, pursued, bought, delta)

    def pursued(self) -> tuple[Guarantee, ...]:
        """The guarantees that can be proved."""
        rare = self._rare()
        return tuple(guarantee for guarantee in self._guarantees if guarantee not in rare)

    def _rare(self) -> tuple[Guarantee, ...]:
        return too_rare(self._guarantees, self._purchases.label_U[self._purchases.answered])

    def ranked(self, guess: Guess, copies: int) -> Units:
        """Units that may be kept, the surest first."""
        units = self._purchases.open_units
        return self._purchases.surest(units[self._purchases.copies_U[units] <= copies], guess)

    def spare(self, delta: float) -> float:
        """What of delta is set aside for the prefix that is left if the money ends after the draw."""
        return delta * RESERVED if self._purchases.oracle.is_capped else 0.0

    def is_short(self, guess: Guess, forecast: Forecast) -> bool:
        """Whether the money does not cover the plan."""
        if not self._purchases.oracle.is_capped:
            return False
        units = self._from_the_end(guess, forecast.copies)
        return self._purchases.oracle.affords(units) < min(len(units), math.ceil(forecast.calls))

    def affordable_calls(self, guess: Guess, forecast: Forecast) -> int:
        """Calls that the money pays for, in the order in which the plan escalates."""
        return self._purchases.oracle.affords(self._from_the_end(guess, forecast.copies))

    def _from_the_end(self, guess: Guess, copies: int) -> Units:
        """All units that may be bought, in the order in which a plan escalates them."""
        ranked = self.ranked(guess, copies)
        return np.concatenate([np.setdiff1d(self._purchases.open_units, ranked), ranked[::-1]])

    def _failure_rate(self) -> float:
        """The share of failed rows among those that were asked, and `_PRIOR_ANSWERED` more."""
        asked = np.flatnonzero(self._purchases.asked_U)
        return self._purchases.rows(self._purchases.failed) / (self._purchases.rows(asked) + _PRIOR_ANSWERED)

    def _wrong(self, guess: Guess, ranked: Units) -> NDArray[np.float64]:
        """P(a drawn unit counts as an error): the small model is wrong, or the oracle fails."""
        return guess.wrong_U[ranked] + (1 - guess.wrong_U[ranked]) * self._failure_rate()

    def _reserve(self, num_calls: float, allowed: int) -> int:
        """Rows set aside for failures, of those `allowed`: those so far, and as many as further calls may bring."""
        further = num_calls * self._failure_rate()
        failed_rows = self._purchases.rows(self._purchases.failed)
        return min(allowed, failed_rows + math.ceil(further + 2 * math.sqrt(further)))
