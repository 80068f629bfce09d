"""The rounds that label one finite table: pilot, train, plan, draw, test, escalate.

Every unit whose answer was bought is exact. The test bounds how many of the others differ from what the oracle would
have said (`kcm.certification.finite`). Shapes: U units, of `copies_U` equal rows each; M units that may be kept, in the
order of the ranking; N rows in all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from operator import attrgetter
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from kcm.certification.finite import afforded_errors, allowed_errors, longest_prefix, missed_errors
from kcm.errors import DataError
from kcm.labelling.draws import DrawFile
from kcm.labelling.guarantees import (
    MAX_COPIES,
    ClassDraw,
    ClassPlan,
    ClassPromise,
    Guarantee,
    class_plan,
    relevant,
    too_rare,
)
from kcm.labelling.plan import CappedPlan, DrawPlan, capped_plan, cheapest_plan

FAILED = -1  # the code of a unit that the oracle gave no usable answer to
_ROUNDS_FITTED, _SLOPE_WEIGHT, _ODDS = 5, 0.3, 1.6
RESERVED = 0.1  # share of delta for the prefix that is left if the money ends after the draw
_TRAINED = 0.4  # share of a budget that trains, if it is too small for the plan
_MAX_COPIES = (1, 2, 3, 5, 10)
_PRIOR_ANSWERED = 50  # rows with an answer: two failures of 50 units are mostly bad luck
_SECOND_DRAW = 2
_CLASS_DRAW = 3  # the number of the draw for guarantees of labels, after two for agreement

Units = NDArray[np.int64]


class NoAnswers(DataError):
    """The oracle answered nothing at all."""


@dataclass(frozen=True, eq=False)
class Guess:
    """What the small model would answer: codes of labels [U], and the probability that each is wrong [U]."""

    answer_U: Units
    wrong_U: NDArray[np.float64]


class SmallModel(Protocol):
    """The small model of one table."""

    def fit(self, units: Units, labels: Units) -> Guess:
        """Learn from the units bought so far and their labels, and guess every unit."""


class Purse(Protocol):
    """The money of one job."""

    def affords(self, units: Units) -> int:
        """How many of these units, in order, can be bought at their highest price."""


class Looks(Protocol):
    """What the draws of a job may spend of delta, the second one if `again`."""

    def forecast(self, *, again: bool = False) -> float:
        """As far as it is known before the look is recorded."""

    def spend(self, *, again: bool = False) -> float:
        """Once and for all: the look is recorded."""


@dataclass(frozen=True)
class Promise:
    """At least a share `target` of the answers agrees with the oracle, with probability at least 1 - `delta`.

    Each of the `guarantees` holds with the same probability; without a target they are all that is promised.
    """

    target: float | None
    delta: float
    guarantees: tuple[Guarantee, ...] = ()


@dataclass(frozen=True)
class Schedule:
    """How much is bought before the draw.

    The pilot has `pilot` units. A further round buys `growth` times what was bought so far: a share `unsure` of it from
    the third of units that the small model is least sure of, which would be escalated in any case, the rest uniformly.
    `slope` is how fast the calls after training are assumed to fall, as a power of what was bought, before rounds have
    shown it. Rounds end if another one is not expected to pay.
    """

    pilot: int
    growth: float
    unsure: float = 0.5
    slope: float = 0.4

    def pays(self, bought: Sequence[float], calls: Sequence[float]) -> bool:
        """Whether another round lowers the expected total.

        Further `calls` after each round are taken for a power of what was `bought`: least squares in logarithms over
        the last rounds, with a slope drawn to the assumed one.
        """
        log_calls, slope = _trend(bought, np.log(np.maximum(calls, 1e-9)), self.slope)
        falls = np.exp(log_calls) * (1 - (1 + self.growth) ** slope)
        return bool(falls > self.growth * bought[-1])

    def expected(self, bought: Sequence[float], calls: Sequence[float], num_units: int) -> tuple[float, float]:
        """Calls until training ends, and in all, with the rounds to come that lower these.

        With most of the units still to be bought, further calls c fall more slowly than the assumed power, and faster
        later on. So the odds c / (U - c) are taken for a power of what was bought; its slope is `_ODDS` times the
        assumed one, which had no bias at a target of .95 on tables of CLINC150 by domain and by 75 intents.
        """
        share = np.clip(np.array(calls, dtype=np.float64) / num_units, 1e-9, 1 - 1e-9)
        log_odds, slope = _trend(bought, logit(share), _ODDS * self.slope)
        size, best = bought[-1], bought[-1] + num_units * float(expit(log_odds))
        while True:
            log_odds += slope * np.log(1 + self.growth)
            total = size * (1 + self.growth) + num_units * float(expit(log_odds))
            if total >= best:
                return size, best
            size, best = size * (1 + self.growth), total


def _trend(bought: Sequence[float], y: NDArray[np.float64], assumed: float) -> tuple[float, float]:
    """The last value of y, smoothed, and its slope over log(bought), drawn to one of -`assumed`."""
    x, y = np.log(bought[-_ROUNDS_FITTED:]), y[-_ROUNDS_FITTED:]
    dx, dy = x - x.mean(), y - y.mean()
    slope = float((dx @ dy - _SLOPE_WEIGHT * assumed) / (dx @ dx + _SLOPE_WEIGHT))
    return float(y.mean() + slope * (x[-1] - x.mean())), slope


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


@dataclass(frozen=True)
class Test:
    """One draw: of the first `num_ranked` units `num_drawn` were drawn, `num_wrong` of them errors, and `num_kept` of
    the ranking hold. `most_wrong` drawn errors were afforded."""

    num_ranked: int
    num_drawn: int
    most_wrong: int
    num_wrong: int
    num_kept: int
    delta: float


@dataclass(eq=False)
class Labelled:
    """The answers of all units, and the proved bound.

    `answer_U` has the oracle's labels where `bought_U`, or the small model's. `differ` bounds the rows that differ
    from the oracle's answers, of `num_rows`; the target allows `allowed`. `num_failed` rows have no answer. `guess` is
    what the small model would answer to every unit; it has learned from the units `taught_U`. `failed_U` have no
    answer: the oracle gave none, or the money did not reach them. `asked_U` were put to the oracle. `is_second_look`
    says whether the bound is that of a second look. `lacking` is the plan that would prove the target with more money.
    """

    answer_U: Units
    wrong_U: NDArray[np.float64]
    bought_U: NDArray[np.bool_]
    failed_U: NDArray[np.bool_]
    asked_U: NDArray[np.bool_]
    guess: Guess
    taught_U: NDArray[np.bool_]
    num_rows: int
    allowed: int
    differ: int
    num_failed: int = 0
    forecasts: list[Forecast] = field(default_factory=list)
    tests: list[Test] = field(default_factory=list)
    guarantees: tuple[ClassPromise, ...] = ()
    is_second_look: bool = False
    lacking: Forecast | None = None

    @property
    def certified(self) -> bool:
        """Whether the target and all guarantees are proved."""
        return self.differ <= self.allowed and all(guarantee.holds for guarantee in self.guarantees)

    @property
    def promised(self) -> float:
        """The proved share of rows that agree with the oracle."""
        return 1 - self.differ / self.num_rows


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

    def arrays(self) -> dict[str, NDArray[Any]]:
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
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Draw:
        """What `arrays` wrote."""
        num_ranked, copies, allowed, most, left, capped = arrays["numbers"].tolist()
        guess = Guess(arrays["answer_U"], arrays["wrong_U"])
        ranked, places, delta = arrays["ranked"], arrays["places"], float(arrays["delta"])
        return cls(guess, ranked, places, num_ranked, copies, allowed, most, left, delta, bool(capped))


@dataclass(frozen=True, eq=False)
class _Prefix:
    """Units that the small model may answer, its guess, and the bound on rows among them that differ.

    The guess has learned from the units `taught`. A test bounds units of at most `copies` rows; 0 if there was none.
    """

    guess: Guess
    taught: Units
    units: Units
    differ: int
    copies: int = 0
    is_second_look: bool = False


class Rounds:
    """One job: `run` buys answers and labels all units.

    `ask` maps units to codes of labels, or `FAILED`; every unit is asked at most once. `watch` sees every forecast, and
    a function that forecasts another target; `drawn`, after the draw, the calls in all and the share of rows that is
    then expected to be proved. `ahead` may pay in bulk for units that are asked next: a draw, and the rest that follows
    from it. With `looks`, `promise.delta` is a forecast until the draw begins, and a job that was capped may draw again
    with more money; `paid` gives the units among some that an earlier start has paid for. All random choices follow
    from `seed`.
    """

    def __init__(
        self,
        copies_U: Units,
        side: SmallModel,
        ask: Callable[[Units], Units],
        promise: Promise,
        schedule: Schedule,
        seed: int,
        purse: Purse | None = None,
        watch: Callable[[Forecast, Callable[[float], Forecast]], None] = lambda forecast, at: None,
        draws: DrawFile | None = None,
        drawn: Callable[[int, float], None] = lambda total, promised: None,
        ahead: Callable[[Units], None] = lambda units: None,
        looks: Looks | None = None,
        paid: Callable[[Units], Units] = lambda units: units[:0],
    ) -> None:
        self._seed, self._looks, self._paid_before = seed, looks, paid
        self._copies, self._side, self._ask, self._purse, self._draws = copies_U, side, ask, purse, draws
        self._promise, self._schedule, self._watch, self._tell_drawn = promise, schedule, watch, drawn
        self._ahead = ahead
        self._rng = np.random.default_rng(seed)
        self._num_rows = int(copies_U.sum())
        self._allowed = self._num_rows if promise.target is None else allowed_errors(promise.target, self._num_rows)
        self._tie = self._rng.random(len(copies_U))
        self._label = np.full(len(copies_U), FAILED, dtype=np.int64)
        self._asked = np.zeros(len(copies_U), dtype=bool)
        self._forecasts: list[Forecast] = []
        self._tests: list[Test] = []
        self._guaranteed: tuple[ClassPromise, ...] = ()
        self._lacking: Forecast | None = None

    def run(self) -> Labelled:
        """Buy until the promise is proved or the money is spent. Raises what `ask` raises.

        A job whose draw has begun finishes that draw.
        """
        prefix = self._everything() if self._promise.target is None else self._agreeing()
        return self._delivered(self._narrowed(prefix) if self._promise.guarantees else prefix)

    def _agreeing(self) -> _Prefix:
        """The units that may be kept by the promise of agreement."""
        first = self._begun(1)
        if first is None:
            guess, _ = self._train(self._promise.delta)
            self._take_look()
            forecast = self._forecast(guess, self._promise.delta)
            short = self._is_short(guess, forecast)
            first = self._capped(guess) if short else self._drawn(guess, forecast, self._promise.delta)
        else:
            self._take_look()  # the one of the earlier start
        prefix = self._tested(first, 1)
        return self._with_more_money(prefix) if first.capped else prefix

    def _take_look(self) -> None:
        """What this look may spend; a pilot without a draw has used nothing of delta."""
        if self._looks is not None:
            self._promise = replace(self._promise, delta=self._looks.spend())

    def _with_more_money(self, prefix: _Prefix) -> _Prefix:
        """A second draw after a capped one, if the money now pays for a whole plan; otherwise the first draw's result.

        The first draw is not enlarged. Its errors are known, and they may be why somebody raised the cap: the test
        does not cover such optional stopping. The second draw has what another look of the ledger may spend, so that
        both tests hold together with probability 1 - delta whatever made the job go on. Everything that was bought
        joins the training set and is exact, and further rounds may follow. Ranking and draw are of the other units
        alone. One of both prefixes is delivered, never their union.
        """
        if self._looks is None or self._promise.guarantees:
            return prefix
        again = self._begun(_SECOND_DRAW)
        if again is not None:
            self._looks.spend(again=True)  # the look of the earlier start
        else:
            again = self._second_draw(prefix, self._looks)
        if again is None:
            return prefix
        second = replace(self._tested(again, _SECOND_DRAW), is_second_look=True)
        return min(prefix, second, key=self._unproved)

    def _second_draw(self, prefix: _Prefix, looks: Looks) -> Draw | None:
        """A draw by another look; None if the first proves the target, or the money does not cover the plan."""
        if self._unproved(prefix) <= self._allowed:
            return None
        self._buy(self._paid_before(np.flatnonzero(~self._asked)))
        guess = self._guess()
        self._lacking = self._forecast(guess, looks.forecast(again=True))
        if self._is_short(guess, self._lacking):
            return None
        self._lacking = None
        self._forecasts = []
        guess, forecast = self._train(looks.forecast(again=True))
        if self._is_short(guess, forecast):
            return None
        delta = looks.spend(again=True)
        return self._drawn(guess, self._forecast(guess, delta), delta, _SECOND_DRAW)

    def _unproved(self, prefix: _Prefix) -> int:
        """Rows that may differ once the money is spent."""
        rest = self._open(prefix)
        return prefix.differ + int(self._copies[rest[len(self._paid(rest)) :]].sum())

    def _everything(self) -> _Prefix:
        """All units, if agreement is not promised."""
        if self._draws and self._draws.read(_CLASS_DRAW):
            nobody = np.array([], dtype=np.int64)  # what follows reads the draw's own guess
            return _Prefix(Guess(self._label, np.zeros(len(self._label))), nobody, np.arange(len(self._label)), 0)
        guess, _ = self._train(self._promise.delta)
        units = np.flatnonzero(~self._asked)
        return _Prefix(guess, np.flatnonzero(self._asked), units, int(self._copies[units].sum()))

    def _narrowed(self, prefix: _Prefix) -> _Prefix:
        """Draw within the kept units, then escalate the end of their ranking until every guarantee is proved."""
        self._take_look()
        guarantees, delta = self._promise.guarantees, self._promise.delta
        arrays: dict[str, Any] | None = self._draws.read(_CLASS_DRAW) if self._draws else None
        if arrays is None:
            may = np.zeros(len(self._copies), dtype=bool)
            may[prefix.units] = True
            ranked, plan = self._class_plan(prefix.guess, may)
            most = len(ranked) if self._purse is None else self._purse.affords(ranked[::-1]) // 2
            rng = np.random.default_rng((self._seed, _CLASS_DRAW))  # see `_places`
            draw = plan.drawn(ranked, prefix.guess.answer_U, self._pursued(), most, rng)
            arrays = {"answer_U": draw.answer_U, "ranked": ranked, "lengths": draw.lengths, "drawn": draw.drawn}
            arrays |= {"wrong_U": prefix.guess.wrong_U, "units": prefix.units, "differ": np.array(prefix.differ)}
            arrays |= {"asked": np.flatnonzero(self._asked), "taught": prefix.taught}
            arrays |= {"pursued": np.array([guarantee in self._pursued() for guarantee in guarantees])}
            if self._draws:
                self._draws.write(_CLASS_DRAW, arrays)
        else:
            self._buy(arrays["asked"][~self._asked[arrays["asked"]]])
            draw = ClassDraw(*(arrays[name] for name in ("answer_U", "ranked", "lengths", "drawn")))
            guess = Guess(draw.answer_U, arrays["wrong_U"])
            prefix = _Prefix(guess, arrays["taught"], arrays["units"], int(arrays["differ"]))
        pursued = [guarantee for guarantee, is_one in zip(guarantees, arrays["pursued"], strict=True) if is_one]
        self._buy_many(self._paid(draw.drawn[~self._asked[draw.drawn]]))
        free = prefix.units[~relevant(draw.answer_U, pursued)[prefix.units]]
        for length in (*draw.lengths.tolist(), 0):
            units = np.concatenate([free, draw.ranked[:length]])
            units = units[~self._asked[units]]
            prefix = _Prefix(prefix.guess, prefix.taught, units, min(prefix.differ, int(self._copies[units].sum())))
            rest = self._open(prefix)
            self._buy_many(self._paid(rest))
            self._guaranteed = draw.proved(guarantees, self._label, self._asked, self._copies, delta)
            done = all(
                promise.holds
                for guarantee, promise in zip(guarantees, self._guaranteed, strict=True)
                if guarantee in pursued
            )
            if done or not self._asked[rest].all():
                break
        return prefix

    def _class_plan(self, guess: Guess, may_be_kept_U: NDArray[np.bool_]) -> tuple[Units, ClassPlan]:
        """The units that matter to a guarantee and may be kept, the surest first, and the plan for them."""
        pursued = self._pursued()
        matter = may_be_kept_U & ~self._asked & (self._copies <= MAX_COPIES) & relevant(guess.answer_U, pursued)
        units = np.flatnonzero(matter)
        ranked = units[np.lexsort((self._tie[units], guess.wrong_U[units]))]
        bought = self._label[self._label != FAILED]
        return ranked, class_plan(ranked, guess.answer_U, guess.wrong_U, pursued, bought, self._promise.delta)

    def _rare(self) -> tuple[Guarantee, ...]:
        return too_rare(self._promise.guarantees, self._label[self._label != FAILED])

    def _pursued(self) -> tuple[Guarantee, ...]:
        """The guarantees that can be proved."""
        rare = self._rare()
        return tuple(guarantee for guarantee in self._promise.guarantees if guarantee not in rare)

    def _paid(self, units: Units) -> Units:
        """As many of the units as the money buys."""
        return units if self._purse is None else units[: self._purse.affords(units)]

    def _begun(self, number: int) -> Draw | None:
        """A draw of an earlier start, with everything bought that was bought before it."""
        arrays = self._draws.read(number) if self._draws else None
        if arrays is None:
            return None
        self._buy(arrays["asked"][~self._asked[arrays["asked"]]])
        return Draw.of(arrays)

    def _train(self, delta: float) -> tuple[Guess, Forecast]:
        """Buy the pilot, and more as long as the planned total of a test at `delta` falls."""
        schedule, pilot = self._schedule, self._rng.permutation(len(self._copies))[: self._schedule.pilot]
        self._buy(self._some(pilot[~self._asked[pilot]]))
        if self._asked.any() and (self._label == FAILED).all():
            raise NoAnswers(f"none of the first {int(self._asked.sum()):,} texts got a usable answer", where="llm")
        while True:
            guess = self._guess()
            forecast = self._forecast(guess, delta)
            bought, calls = ([*map(attrgetter(name), [*self._forecasts, forecast])] for name in ("bought", "calls"))
            expected = schedule.expected(bought, calls, len(self._copies))
            forecast = replace(forecast, expected=expected, promised=self._expected_promise(guess, forecast))
            self._forecasts.append(forecast)
            self._watch(forecast, partial(self._at, guess))
            pays = schedule.pays(bought, calls)
            batch = self._batch(guess, round(schedule.growth * forecast.bought))
            if not pays or len(batch) == 0 or self._overspends(guess, forecast, batch):
                return guess, forecast
            self._buy(batch)

    def _at(self, guess: Guess, target: float) -> Forecast:
        """What another target would cost; for display."""
        forecast = self._forecast(guess, self._promise.delta, allowed_errors(target, self._num_rows))
        expected = self._schedule.expected([forecast.bought], [forecast.calls], len(self._copies))
        return replace(forecast, expected=expected)

    def _expected_promise(self, guess: Guess, forecast: Forecast) -> float | None:
        """The share of rows that is expected to be proved to agree."""
        if self._promise.target is None:
            return None
        if not self._is_short(guess, forecast):
            return 1 - self._allowed / self._num_rows
        ranked, copies, plan = self._capped_plan(guess)
        calls = plan.num_drawn + len(ranked) - plan.num_kept
        differ = copies * plan.errors + self._reserve(calls, self._num_rows)
        return 1 - min(self._num_rows, differ) / self._num_rows

    def _batch(self, guess: Guess, size: int) -> Units:
        """Units for another round of training."""
        rest = np.flatnonzero(~self._asked)
        unsure = rest[np.lexsort((self._tie[rest], -guess.wrong_U[rest]))][: max(1, len(rest) // 3)]
        first = self._rng.permutation(unsure)[: round(self._schedule.unsure * size)]
        others = self._rng.permutation(np.setdiff1d(rest, first))[: size - len(first)]
        return np.concatenate([first, others])

    def _forecast(self, guess: Guess, delta: float, allowed: int | None = None) -> Forecast:
        """The cheapest plan over the copies that a unit may have without being bought."""
        if self._promise.target is None:
            ranked, classes = self._class_plan(guess, ~self._asked)
            open_ = np.flatnonzero(~self._asked)
            extra = int(relevant(guess.answer_U, self._pursued())[open_].sum()) - len(ranked)
            num_drawn = sum(classes.sizes.values())
            plan = DrawPlan(classes.length, num_drawn, 0, len(open_) - extra - classes.calls, classes.calls)
            return Forecast(int(self._asked.sum()), MAX_COPIES, extra, plan, self._rare())
        allowed = self._allowed if allowed is None else allowed
        delta -= self._spare(delta)
        copies = self._copies[~self._asked]
        highest = int(copies.max(initial=1))
        forecasts = []
        for most in sorted({min(limit, highest) for limit in _MAX_COPIES}):
            ranked = self._ranked(guess, most)
            extra, wrong_M = len(copies) - len(ranked), self._wrong(guess, ranked)
            reserve = self._reserve(extra, allowed)
            plan = cheapest_plan(wrong_M, (allowed - reserve) // most, delta)
            while (further := self._reserve(extra + plan.calls, allowed)) > reserve:  # what the plan buys may fail too
                reserve = further
                plan = cheapest_plan(wrong_M, (allowed - reserve) // most, delta)
            forecasts.append(Forecast(int(self._asked.sum()), most, extra, plan, self._rare(), reserve))
        return min(forecasts, key=lambda forecast: forecast.total)

    def _ranked(self, guess: Guess, copies: int) -> Units:
        """Units that may be kept, the surest first; ties are broken at random."""
        units = np.flatnonzero(~self._asked & (self._copies <= copies))
        return units[np.lexsort((self._tie[units], guess.wrong_U[units]))]

    @property
    def _failed_rows(self) -> int:
        """Rows whose answer the oracle failed to give."""
        return int(self._copies[self._asked & (self._label == FAILED)].sum())

    def _failure_rate(self) -> float:
        """The share of failed rows among those that were asked, and `_PRIOR_ANSWERED` more."""
        return self._failed_rows / (int(self._copies[self._asked].sum()) + _PRIOR_ANSWERED)

    def _wrong(self, guess: Guess, ranked: Units) -> NDArray[np.float64]:
        """P(a drawn unit counts as an error): the small model is wrong, or the oracle fails."""
        return guess.wrong_U[ranked] + (1 - guess.wrong_U[ranked]) * self._failure_rate()

    def _reserve(self, num_calls: float, allowed: int) -> int:
        """Rows set aside for failures, of those `allowed`: those so far, and as many as further calls may bring."""
        further = num_calls * self._failure_rate()
        return min(allowed, self._failed_rows + math.ceil(further + 2 * math.sqrt(further)))

    def _drawn(self, guess: Guess, forecast: Forecast, delta: float, number: int = 1) -> Draw:
        """The draw of a plan."""
        plan, ranked = forecast.plan, self._ranked(guess, forecast.copies)
        allowed = max(0, (self._allowed - forecast.reserve) // forecast.copies)
        most = afforded_errors(plan.num_ranked, plan.num_drawn, allowed, delta - self._spare(delta))
        if plan.num_ranked - plan.num_drawn <= allowed:
            most = plan.num_drawn  # so many units may all be wrong
        left = self._left_by_money(guess, ranked, forecast) if self._purse else 0
        places = self._places(plan.num_ranked, plan.num_drawn, number)
        return Draw(guess, ranked, places, plan.num_ranked, forecast.copies, allowed, most, left, delta, capped=False)

    def _spare(self, delta: float) -> float:
        """What of delta is set aside for the prefix that is left if the money ends after the draw."""
        return delta * RESERVED if self._purse else 0.0

    def _capped(self, guess: Guess) -> Draw:
        """The draw of a budget that does not cover the plan: one prefix, all of which is kept."""
        ranked, copies, plan = self._capped_plan(guess)
        places = self._places(plan.num_kept, plan.num_drawn)
        return Draw(guess, ranked, places, plan.num_kept, copies, 0, 0, 0, self._promise.delta, capped=True)

    def _capped_plan(self, guess: Guess) -> tuple[Units, int, CappedPlan]:
        """The ranking, the most copies that a unit has, and the plan of such a budget."""
        assert self._purse is not None
        copies = int(self._copies[~self._asked].max(initial=1))
        ranked, affordable = self._ranked(guess, copies), self._purse.affords(self._from_the_end(guess, 1))
        return ranked, copies, capped_plan(self._wrong(guess, ranked), affordable, self._promise.delta)

    def _places(self, num_ranked: int, num_drawn: int, number: int = 1) -> Units:
        """The drawn ranks of draw `number`.

        After the first draw each has a generator of its own: that of the job has gone through the pilot before, and
        would repeat itself in a job that begins with a draw of an earlier start.
        """
        rng = self._rng if number == 1 else np.random.default_rng((self._seed, number))
        return np.sort(rng.choice(num_ranked, num_drawn, replace=False)).astype(np.int64)

    def _tested(self, draw: Draw, number: int) -> _Prefix:
        """Buy the drawn units, and keep the longest prefix that holds, or that the money leaves."""
        taught = np.flatnonzero(self._asked)
        if self._draws:
            self._draws.write(number, draw.arrays() | {"asked": taught})
        units = draw.ranked[draw.places]
        self._buy_many(units[~self._asked[units]])
        wrong = self._label[units] != draw.guess.answer_U[units]  # a failure counts as an error
        length = draw.num_ranked if draw.capped else longest_prefix(draw.places, wrong, draw.num_ranked, draw.most)
        self._tests.append(Test(draw.num_ranked, len(units), draw.most, int(wrong.sum()), length, draw.delta))
        if draw.capped:
            missed = missed_errors(draw.num_ranked, len(units), int(wrong.sum()), draw.delta)
            return _Prefix(draw.guess, taught, draw.ranked[:length], draw.copies * missed)
        prefix = _Prefix(draw.guess, taught, draw.ranked[:length], draw.copies * draw.allowed, draw.copies)
        if (
            self._purse is None
            or draw.left <= length
            or self._purse.affords(self._open(prefix)) == len(self._open(prefix))
        ):
            return prefix
        inside, tested = draw.places < draw.left, min(draw.left, draw.num_ranked)
        missed = missed_errors(tested, int(inside.sum()), int(wrong[inside].sum()), draw.delta * RESERVED)
        return _Prefix(draw.guess, taught, draw.ranked[: draw.left], draw.copies * (missed + draw.left - tested))

    def _is_short(self, guess: Guess, forecast: Forecast) -> bool:
        """Whether the money does not cover the plan."""
        if self._purse is None:
            return False
        units = self._from_the_end(guess, forecast.copies)
        return self._purse.affords(units) < min(len(units), math.ceil(forecast.calls))

    def _overspends(self, guess: Guess, forecast: Forecast, batch: Units) -> bool:
        """Whether a further round takes too much of a budget that does not cover the plan."""
        if not self._is_short(guess, forecast):
            return False
        assert self._purse is not None
        left = self._purse.affords(self._from_the_end(guess, forecast.copies))
        return forecast.bought + len(batch) > _TRAINED * (forecast.bought + left)

    def _from_the_end(self, guess: Guess, copies: int) -> Units:
        """All units that may be bought, in the order in which a plan escalates them."""
        ranked = self._ranked(guess, copies)
        return np.concatenate([np.setdiff1d(np.flatnonzero(~self._asked), ranked), ranked[::-1]])

    def _left_by_money(self, guess: Guess, ranked: Units, forecast: Forecast) -> int:
        """Length of the prefix that is left if all the money is spent; known before the draw."""
        assert self._purse is not None
        calls = self._purse.affords(self._from_the_end(guess, forecast.copies))
        return min(len(ranked), max(0, len(ranked) - (calls - forecast.extra - forecast.plan.num_drawn)))

    def _open(self, prefix: _Prefix) -> Units:
        """Units that are to be escalated, those that the small model is least sure of first."""
        units = np.setdiff1d(np.flatnonzero(~self._asked), prefix.units)
        return units[np.lexsort((self._tie[units], -prefix.guess.wrong_U[units]))]

    def _delivered(self, prefix: _Prefix) -> Labelled:
        """Escalate all units that are not kept; those that the money does not reach count as units that differ."""
        rest = self._open(prefix)
        paid = self._paid(rest)
        missing = np.concatenate([rest[len(paid) :], np.flatnonzero(self._asked & (self._label == FAILED))])
        differ = min(self._num_rows, prefix.differ + int(self._copies[missing].sum()))
        self._tell_drawn(int(self._asked.sum()) + len(paid), 1 - differ / self._num_rows)
        self._buy_many(paid)
        if self._promise.target is not None and len(paid) == len(rest):
            prefix = self._repaired(prefix)
        bought = self._label != FAILED
        failed = ~bought & (self._asked | np.isin(np.arange(len(bought)), rest[len(paid) :]))
        num_failed = int(self._copies[failed].sum())
        return Labelled(
            answer_U=np.where(bought, self._label, prefix.guess.answer_U),
            wrong_U=np.where(bought, 0.0, prefix.guess.wrong_U),
            bought_U=bought,
            failed_U=failed,
            asked_U=self._asked.copy(),
            guess=prefix.guess,
            taught_U=bought & np.isin(np.arange(len(bought)), prefix.taught),
            num_rows=self._num_rows,
            num_failed=num_failed,
            allowed=self._allowed,
            differ=min(prefix.differ, self._open_rows(prefix)) + num_failed,
            forecasts=self._forecasts,
            tests=self._tests,
            guarantees=self._guaranteed,
            is_second_look=prefix.is_second_look,
            lacking=self._lacking,
        )

    def _open_rows(self, prefix: _Prefix) -> int:
        """Rows of kept units that were not asked."""
        return int(self._copies[prefix.units[~self._asked[prefix.units]]].sum())

    def _repaired(self, prefix: _Prefix) -> _Prefix:
        """Make up for failures that nothing was set aside for.

        At most so many of the kept units are errors: each error that is found among them, and replaced by the oracle's
        answer, is one less. The least sure ones are bought until the target is kept, all are, or the money ends.
        """
        left = prefix.units[~self._asked[prefix.units]]
        left = left[np.argsort(-prefix.guess.wrong_U[left], kind="stable")]
        while prefix.copies and len(left):
            failed = self._asked & (self._label == FAILED)
            missing = prefix.differ + int(self._copies[failed].sum()) - self._allowed
            if missing <= 0 or prefix.differ == 0:
                break
            batch = self._paid(left[: max(8, math.ceil(2 * missing / prefix.copies))])
            if len(batch) == 0:
                break
            self._buy(batch)
            wrong = (self._label[batch] != FAILED) & (self._label[batch] != prefix.guess.answer_U[batch])
            prefix = replace(prefix, differ=max(0, prefix.differ - prefix.copies * int(wrong.sum())))
            left = left[len(batch) :]
        return prefix

    def _some(self, units: Units) -> Units:
        """As many of `units` as half the money buys."""
        return units if self._purse is None else units[: max(1, self._purse.affords(units) // 2)]

    def _buy_many(self, units: Units) -> None:
        if len(units):
            self._ahead(units)
            self._buy(units)

    def _buy(self, units: Units) -> None:
        if len(units):
            self._label[units] = self._ask(units)
            self._asked[units] = True

    def _guess(self) -> Guess:
        units = np.flatnonzero(self._label != FAILED)
        return self._side.fit(units, self._label[units])
