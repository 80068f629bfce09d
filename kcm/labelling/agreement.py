"""The draws that prove a job's promises: planned before their labels are known, bought, and tested.

The test of agreement bounds how many of the units that are not bought differ from what the oracle would have said
(`kcm.certification.finite`). Shapes: M units that may be kept, in the order of the ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kcm.certification.finite import afforded_errors, longest_prefix, missed_errors
from kcm.config import Config
from kcm.labelling.forecaster import RESERVED, Forecast, Forecaster
from kcm.labelling.guarantees import ClassDraw, ClassPromise, Guarantee, relevant
from kcm.labelling.looks import FIRST_DRAW, Arrays
from kcm.labelling.purchases import Guess, Purchases, Units


class TestedDraw(Config):
    """One draw: `drawn` of the first `ranked` units of the ranking were bought; `wrong` of them were errors.

    `afforded` errors were allowed; the first `kept` units of the ranking hold.
    """

    ranked: int
    drawn: int
    afforded: int
    wrong: int
    kept: int


@dataclass(frozen=True, eq=False)
class Prefix:
    """Units that the small model may answer, its guess, and the bound on rows among them that differ.

    The guess has learned from the units `taught`. A test bounds units of at most `copies` rows; 0 if there was none.
    """

    guess: Guess
    taught: Units
    units: Units
    differ: int
    copies: int = 0
    is_second_look: bool = False


@dataclass(frozen=True, eq=False)
class Draw:
    """A draw before it is bought: everything that the test depends on but the labels.

    The first `num_ranked` of the units `ranked` [M] are tested by those at the ranks `places`; `most` drawn errors are
    afforded. Each of these units has at most `copies` copies, and at most `allowed` undrawn errors are promised. If the
    money ends, the first `left` units are kept. A `capped` draw keeps all of `num_ranked`, and bounds their errors.
    """

    guess: Guess
    ranked: Units
    places: Units
    num_ranked: int
    copies: int
    allowed: int
    most: int
    left: int
    delta: float
    capped: bool

    def arrays(self) -> Arrays:
        """For `DrawFile`."""
        numbers = (self.num_ranked, self.copies, self.allowed, self.most, self.left, self.capped)
        return {
            "answer_U": self.guess.answer_U,
            "wrong_U": self.guess.wrong_U,
            "ranked": self.ranked,
            "places": self.places,
            "numbers": np.array(numbers, dtype=np.int64),
            "delta": np.array(self.delta),
        }

    @classmethod
    def of(cls, arrays: Arrays) -> Draw:
        """What `arrays` wrote."""
        num_ranked, copies, allowed, most, left, capped = arrays["numbers"].tolist()
        guess = Guess(arrays["answer_U"], arrays["wrong_U"])
        ranked, places, delta = arrays["ranked"], arrays["places"], float(arrays["delta"])
        return cls(guess, ranked, places, num_ranked, copies, allowed, most, left, delta, bool(capped))


class Agreement:
    """Plans, buys and tests the draws of one job."""

    def __init__(self, purchases: Purchases, forecaster: Forecaster, seed: int, rng: np.random.Generator) -> None:
        self._purchases, self._forecaster, self._seed, self._rng = purchases, forecaster, seed, rng
        self.salt: tuple[int, ...] = ()  # see `JobLooks`
        self.tests: list[TestedDraw] = []

    def drawn(self, guess: Guess, forecast: Forecast, delta: float, number: int) -> Draw:
        """The draw of a plan."""
        plan, ranked = forecast.plan, self._forecaster.ranked(guess, forecast.copies)
        allowed = max(0, (self._forecaster.allowed - forecast.reserve) // forecast.copies)
        spend = delta - self._forecaster.spare(delta)
        most = afforded_errors(plan.num_ranked, plan.num_drawn, allowed, spend)
        if plan.num_ranked - plan.num_drawn <= allowed:
            most = plan.num_drawn  # so many units may all be wrong
        left = self._left_by_money(guess, len(ranked), forecast) if self._purchases.oracle.is_capped else 0
        places = self._places(plan.num_ranked, plan.num_drawn, number)
        return Draw(guess, ranked, places, plan.num_ranked, forecast.copies, allowed, most, left, delta, capped=False)

    def capped(self, guess: Guess, delta: float) -> Draw:
        """The draw of a budget that does not cover the plan: one prefix, all of which is kept."""
        ranked, copies, plan = self._forecaster.capped_plan(guess, delta)
        places = self._places(plan.num_kept, plan.num_drawn, FIRST_DRAW)
        return Draw(guess, ranked, places, plan.num_kept, copies, 0, 0, 0, delta, capped=True)

    def tested(self, draw: Draw) -> Prefix:
        """Buy the drawn units, and keep the longest prefix that holds, or that the money leaves."""
        purchases, taught = self._purchases, np.flatnonzero(self._purchases.asked_U)
        units = draw.ranked[draw.places]
        purchases.buy_in_bulk(units)
        wrong = purchases.label_U[units] != draw.guess.answer_U[units]  # a failure counts as an error
        length = draw.num_ranked if draw.capped else longest_prefix(draw.places, wrong, draw.num_ranked, draw.most)
        counts = {"ranked": draw.num_ranked, "drawn": len(units), "wrong": int(wrong.sum()), "kept": length}
        self.tests.append(TestedDraw(**counts, afforded=draw.most))
        kept = draw.ranked[:length]
        if draw.capped:
            missed = missed_errors(draw.num_ranked, len(units), int(wrong.sum()), draw.delta)
            return Prefix(draw.guess, taught, kept, draw.copies * missed)
        rest = purchases.outside(kept, draw.guess)
        if draw.left <= length or purchases.oracle.affords(rest) == len(rest):
            return Prefix(draw.guess, taught, kept, draw.copies * draw.allowed, draw.copies)
        inside, tested = draw.places < draw.left, min(draw.left, draw.num_ranked)
        missed = missed_errors(tested, int(inside.sum()), int(wrong[inside].sum()), draw.delta * RESERVED)
        return Prefix(draw.guess, taught, draw.ranked[: draw.left], draw.copies * (missed + draw.left - tested))

    def _places(self, num_ranked: int, num_drawn: int, number: int) -> Units:
        """The drawn ranks of draw `number`.

        After the first draw of the first look each has a generator of its own: that of the job has gone through the
        pilot before, and would repeat itself in a job that begins with a draw of an earlier start.
        """
        is_first = number == FIRST_DRAW and not self.salt
        rng = self._rng if is_first else np.random.default_rng((self._seed, number, *self.salt))
        return np.sort(rng.choice(num_ranked, num_drawn, replace=False)).astype(np.int64)

    def _left_by_money(self, guess: Guess, num_ranked: int, forecast: Forecast) -> int:
        """Length of the prefix that is left if all the money is spent; known before the draw."""
        calls = self._forecaster.affordable_calls(guess, forecast)
        return min(num_ranked, max(0, num_ranked - (calls - forecast.extra - forecast.plan.num_drawn)))


_OF_DRAW, _OF_PREFIX = ("answer_U", "ranked", "lengths", "drawn"), ("taught", "units", "differ")  # on disk


@dataclass(frozen=True, eq=False)
class BegunClasses:
    """A draw within the units of `prefix`, for those of the guarantees that are `pursued`, in their order."""

    prefix: Prefix
    draw: ClassDraw
    pursued: NDArray[np.bool_]

    def arrays(self) -> Arrays:
        """For `DrawFile`."""
        prefix = {name: np.asarray(getattr(self.prefix, name)) for name in _OF_PREFIX}
        draw = {name: getattr(self.draw, name) for name in _OF_DRAW}
        return draw | prefix | {"wrong_U": self.prefix.guess.wrong_U, "pursued": self.pursued}

    @classmethod
    def of(cls, arrays: Arrays) -> BegunClasses:
        """What `arrays` wrote."""
        draw = ClassDraw(*(arrays[name] for name in _OF_DRAW))
        guess = Guess(draw.answer_U, arrays["wrong_U"])
        taught, units, differ = (arrays[name] for name in _OF_PREFIX)
        return cls(Prefix(guess, taught, units, int(differ)), draw, arrays["pursued"])


def drawn_classes(
    prefix: Prefix,
    purchases: Purchases,
    forecaster: Forecaster,
    guarantees: Sequence[Guarantee],
    delta: float,
    seeds: Sequence[int],
) -> BegunClasses:
    """Draw within the kept units; nothing is bought yet.

    `seeds` are of a generator of its own: that of the job would repeat itself in a second start.
    """
    ranked, plan = forecaster.class_plan(prefix.guess, prefix.units, delta)
    most = purchases.oracle.affords(ranked[::-1]) // 2 if purchases.oracle.is_capped else len(ranked)
    pursued = forecaster.pursued()
    draw = plan.drawn(ranked, prefix.guess.answer_U, pursued, most, np.random.default_rng(seeds))
    return BegunClasses(prefix, draw, np.array([guarantee in pursued for guarantee in guarantees]))


def narrowed(
    begun: BegunClasses, purchases: Purchases, guarantees: Sequence[Guarantee], delta: float
) -> tuple[Prefix, tuple[ClassPromise, ...]]:
    """Buy the draw, then escalate the end of the ranking until every pursued guarantee is proved or the money ends."""
    prefix, draw = begun.prefix, begun.draw
    purchases.buy_in_bulk(purchases.affordable(draw.drawn[~purchases.asked_U[draw.drawn]]))
    pursued = [guarantee for guarantee, is_pursued in zip(guarantees, begun.pursued, strict=True) if is_pursued]
    free = prefix.units[~relevant(draw.answer_U, pursued)[prefix.units]]
    promises: tuple[ClassPromise, ...] = ()
    for length in (*draw.lengths.tolist(), 0):
        units = np.concatenate([free, draw.ranked[:length]])
        units = units[~purchases.asked_U[units]]
        prefix = Prefix(prefix.guess, prefix.taught, units, min(prefix.differ, purchases.rows(units)))
        rest = purchases.outside(units, prefix.guess)
        purchases.buy_in_bulk(purchases.affordable(rest))
        promises = draw.proved(guarantees, purchases.label_U, purchases.asked_U, purchases.copies_U, delta)
        proved = all(promise.holds for promise, is_pursued in zip(promises, begun.pursued, strict=True) if is_pursued)
        if proved or not purchases.asked_U[rest].all():
            break
    return prefix, promises
