"""The rounds that label one finite table: pilot, train, plan, draw, test, escalate.

Every unit whose answer was bought is exact; a test bounds how many of the others differ. Shapes: U units, of `copies_U`
equal rows each.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING

import numpy as np

from kcm.certification.finite import allowed_errors
from kcm.labelling.agreement import Agreement, BegunClasses, Draw, Prefix, drawn_classes, narrowed
from kcm.labelling.certificate import Labelled
from kcm.labelling.forecaster import Forecast, Forecaster, Promise
from kcm.labelling.guarantees import ClassPromise
from kcm.labelling.looks import CLASS_DRAW, FIRST_DRAW, SECOND_DRAW, Arrays, DrawFile, JobLooks
from kcm.labelling.plan import Schedule
from kcm.labelling.purchases import Guess, NoAnswers, Oracle, Purchases, SmallModel, Units

if TYPE_CHECKING:
    from kcm.labelling.label_list import LabelList
    from kcm.labelling.texts import Texts
    from kcm.large.base import Estimate

_TRAINED = 0.4  # share of a budget that trains, if it is too small for the plan
_UNSURE = 0.5  # share of a round from the third of units that the small model is least sure of


class Watcher:
    """Callbacks of a running job; a method that raises ends the job, and bought answers are kept."""

    def start(self, texts: Texts, labels: LabelList, estimates: Sequence[Estimate | None], num_compared: int) -> None:
        """Before anything is paid; what each model would cost for every text, None if it has no price.

        People have labelled rows with `num_compared` texts; the LLM's answers on them are bought in the end.
        """

    def resumed(self) -> None:
        """Before anything is bought, if an earlier start of the job has begun its draw: no pilot and no plan follow."""

    def bought(self, count: int, spent: float) -> None:
        """Called with the answers bought so far, recorded ones included, and the currency spent."""

    def bought_cheaper(self, count: int, spent: float) -> None:
        """As `bought`, of the cheaper model."""

    def said(self, line: str) -> None:
        """A batch was sent, or the server is in trouble."""

    def planned(self, forecast: Forecast, at: Callable[[float], Forecast]) -> None:
        """After the pilot and every round of training; `at` forecasts another target."""

    def drawn(self, total: int, promised: float) -> None:
        """After the draw: calls in all, and the share of rows that is now expected to be proved to agree."""


class Rounds:
    """One job: `run` buys answers and labels all units.

    With `looks`, `promise.delta` is a forecast until the draw begins, and a job that was capped may draw again with
    more money. All random choices follow from `seed`.
    """

    def __init__(
        self,
        copies_U: Units,
        side: SmallModel,
        oracle: Oracle,
        promise: Promise,
        schedule: Schedule,
        seed: int,
        *,
        watcher: Watcher | None = None,
        draws: DrawFile | None = None,
        looks: JobLooks | None = None,
    ) -> None:
        self._side, self._oracle, self._promise, self._schedule, self._seed = side, oracle, promise, schedule, seed
        self._watcher, self._draws, self._looks = watcher or Watcher(), draws, looks
        self._rng = np.random.default_rng(seed)
        self._purchases = Purchases(copies_U, self._rng.random(len(copies_U)), oracle)
        self._forecaster = Forecaster(self._purchases, promise.target, promise.guarantees)
        self._agreement = Agreement(self._purchases, self._forecaster, seed, self._rng)
        self._forecasts: list[Forecast] = []
        self._lacking: Forecast | None = None

    def run(self) -> Labelled:
        """Buy until the promise is proved or the money is spent. Raises what the oracle raises.

        A job whose draw has begun finishes that draw.
        """
        prefix = None if self._promise.target is None else self._agreeing()
        if not self._promise.guarantees:
            assert prefix is not None  # something is promised
            return self._delivered(prefix, ())
        begun = self._begun_classes(prefix)
        if begun is None:
            return self.run()  # by the next look, for agreement too
        return self._delivered(*narrowed(begun, self._purchases, self._promise.guarantees, self._promise.delta))

    def _held(self, number: int) -> Arrays | None:
        """A draw that an earlier start of this look has begun, with everything bought that was bought before it."""
        arrays = self._draws.read(number) if self._draws else None
        if arrays is None or str(arrays["look"]) != self._stamp(number):
            return None
        if self._looks is not None:
            self._take_look(again=number == SECOND_DRAW)  # the one of the earlier start
            if not self._looks.begin(number, arrays, again=number == SECOND_DRAW):
                return None
        self._purchases.buy(arrays["asked"])
        return arrays

    def _begins(self, number: int, arrays: Arrays) -> bool:
        """Keep a draw before it is bought, on disk and in the ledger; False if its look has begun another one."""
        arrays |= {"asked": np.flatnonzero(self._purchases.asked_U), "look": np.array(self._stamp(number))}
        if self._draws:
            self._draws.write(number, arrays)
        return self._looks is None or self._looks.begin(number, arrays, again=number == SECOND_DRAW)

    def _stamp(self, number: int) -> str:
        return "" if self._looks is None else self._looks.stamp(again=number == SECOND_DRAW)

    def _begun_classes(self, prefix: Prefix | None) -> BegunClasses | None:
        """The draw for guarantees: that of an earlier start, or a new one within `prefix`, by default all units.

        None if another start has begun the draw of this look.
        """
        arrays = self._held(CLASS_DRAW)
        if arrays is not None:
            return BegunClasses.of(arrays)
        if prefix is None:
            guess, _ = self._train(self._promise.delta)
            prefix = self._surest(guess, len(self._purchases.open_units))
        self._take_look()
        guarantees, delta = self._promise.guarantees, self._promise.delta
        seeds = self._seed, CLASS_DRAW, *self._agreement.salt
        begun = drawn_classes(prefix, self._purchases, self._forecaster, guarantees, delta, seeds)
        return begun if self._begins(CLASS_DRAW, begun.arrays()) else None

    def _surest(self, guess: Guess, num_kept: int) -> Prefix:
        """So many of the units that training has not bought; all of them may be wrong."""
        purchases = self._purchases
        units = purchases.surest(purchases.open_units, guess)[:num_kept]
        return Prefix(guess, np.flatnonzero(purchases.asked_U), units, purchases.rows(units))

    def _agreeing(self) -> Prefix:
        """The units that may be kept by the promise of agreement."""
        held = self._held(FIRST_DRAW)
        if held is not None:
            first = Draw.of(held)
        else:
            guess, _ = self._train(self._promise.delta)
            num_kept = self._untested(guess)
            if num_kept is not None:
                return self._surest(guess, num_kept)
            first = self._first_draw(guess)
        prefix = self._agreement.tested(first)
        return self._with_more_money(prefix) if first.capped else prefix

    def _untested(self, guess: Guess) -> int | None:
        """How many units are kept without a draw: none if all are bought, or what a cap leaves; None for a draw.

        Neither a draw nor a look is recorded, so a start with more money has a first draw and its whole share of delta.
        """
        if not len(self._purchases.open_units):
            return 0
        forecast = self._forecaster.forecast(guess, self._promise.delta)
        if not self._forecaster.is_short(guess, forecast):
            return None
        _, _, plan = self._forecaster.capped_plan(guess, self._promise.delta)
        if plan.num_drawn:
            return None
        self._lacking = forecast
        return plan.num_kept

    def _first_draw(self, guess: Guess) -> Draw:
        """The draw of the plan, or of a cap that does not cover it, by a look that is taken now."""
        while True:
            delta = self._take_look()
            forecast = self._forecaster.forecast(guess, delta)
            if self._forecaster.is_short(guess, forecast):
                draw = self._agreement.capped(guess, delta)
            else:
                draw = self._agreement.drawn(guess, forecast, delta, FIRST_DRAW)
            if self._begins(FIRST_DRAW, draw.arrays()):
                return draw

    def _take_look(self, *, again: bool = False) -> float:
        """What this look may spend; a pilot without a draw has used nothing of delta."""
        if self._looks is None:
            return self._promise.delta
        delta = self._looks.spend(again=again)
        if not again:
            self._promise = replace(self._promise, delta=delta)
        self._agreement.salt = self._looks.salt
        return delta

    def _with_more_money(self, prefix: Prefix) -> Prefix:
        """A second draw after a capped one, if the money now pays for a whole plan; otherwise the first draw's result.

        The first draw is not enlarged. Its errors are known, and they may be why somebody raised the cap: the test
        does not cover such optional stopping. The second draw has what another look of the ledger may spend, so that
        both tests hold together with probability 1 - delta whatever made the job go on. Everything that was bought
        joins the training set and is exact, and further rounds may follow. Ranking and draw are of the other units
        alone. One of both prefixes is delivered, never their union.
        """
        if self._looks is None or self._promise.guarantees:
            return prefix
        held = self._held(SECOND_DRAW)
        again = self._second_draw(prefix, self._looks) if held is None else Draw.of(held)
        if again is None:
            return prefix
        second = replace(self._agreement.tested(again), is_second_look=True)
        return min(prefix, second, key=self._unproved)

    def _second_draw(self, prefix: Prefix, looks: JobLooks) -> Draw | None:
        """A draw by another look; None if the first proves the target, or the money does not cover the plan."""
        if self._unproved(prefix) <= self._forecaster.allowed:
            return None
        self._purchases.buy(self._oracle.paid(self._purchases.open_units))
        guess, planned = self._guess(), looks.forecast(again=True)
        lacking = self._forecaster.forecast(guess, planned)
        if self._forecaster.is_short(guess, lacking):
            self._lacking = lacking
            return None
        self._forecasts = []
        guess, forecast = self._train(planned)
        if self._forecaster.is_short(guess, forecast):
            return None
        while True:
            delta = self._take_look(again=True)
            draw = self._agreement.drawn(guess, self._forecaster.forecast(guess, delta), delta, SECOND_DRAW)
            if self._begins(SECOND_DRAW, draw.arrays()):
                return draw

    def _unproved(self, prefix: Prefix) -> int:
        """Rows that may differ once the money is spent."""
        rest = self._purchases.outside(prefix.units, prefix.guess)
        return prefix.differ + self._purchases.rows(rest[self._oracle.affords(rest) :])

    def _train(self, delta: float) -> tuple[Guess, Forecast]:
        """Buy the pilot, and more as long as the planned total of a test at `delta` falls."""
        schedule, purchases = self._schedule, self._purchases
        self._buy_pilot()
        while True:
            guess = self._guess()
            forecast = self._forecaster.forecast(guess, delta)
            bought, calls = ([*map(attrgetter(name), [*self._forecasts, forecast])] for name in ("bought", "calls"))
            expected = schedule.expected(bought, calls, len(purchases.copies_U))
            promised = self._forecaster.promised(guess, forecast, delta)
            forecast = replace(forecast, expected=expected, promised=promised)
            if self._oracle.reasons and not self._forecasts:
                self._watcher.said(self._failures())
            self._forecasts.append(forecast)
            self._watcher.planned(forecast, partial(self._at, guess, delta))
            pays = schedule.pays(bought, calls)
            batch = self._batch(guess, round(schedule.growth * forecast.bought))
            if not pays or len(batch) == 0 or self._overspends(guess, forecast, batch):
                return guess, forecast
            purchases.buy(batch)

    def _buy_pilot(self) -> None:
        """Buy the pilot, for half of the money if it does not cover the table. Raises NoAnswers if it got no answer."""
        purchases = self._purchases
        pilot = self._rng.permutation(len(purchases.copies_U))[: self._schedule.pilot]
        pilot = pilot[~purchases.asked_U[pilot]]
        if self._oracle.is_capped:
            units = np.concatenate([pilot, np.setdiff1d(purchases.open_units, pilot)])
            affordable = self._oracle.affords(units)
            pilot = pilot if affordable == len(units) else pilot[: max(1, affordable // 2)]
        purchases.buy(pilot)
        if purchases.num_asked and not len(purchases.answered):
            reason = next(iter(self._oracle.reasons.values()), "")
            what = f"none of the first {purchases.num_asked:,} texts got a usable answer: {reason}"
            hint = "Correct --labels or --prompt; replies are kept: the same question is not asked again"
            raise NoAnswers(what, where="llm", hint=hint)

    def _failures(self) -> str:
        """A line on failures of the pilot."""
        reasons = self._oracle.reasons
        num_failed = f"{len(reasons):,} of {self._purchases.num_asked:,} texts"
        return f"{num_failed} have no usable answer, such as: {next(iter(reasons.values()))}"

    def _at(self, guess: Guess, delta: float, target: float) -> Forecast:
        """What another target would cost; for display."""
        forecast = self._forecaster.forecast(guess, delta, allowed_errors(target, self._forecaster.num_rows))
        num_units = len(self._purchases.copies_U)
        return replace(forecast, expected=self._schedule.expected([forecast.bought], [forecast.calls], num_units))

    def _batch(self, guess: Guess, size: int) -> Units:
        """Units for another round of training."""
        rest = self._purchases.outside(np.empty(0, np.int64), guess)
        first = self._rng.permutation(rest[: max(1, len(rest) // 3)])[: round(_UNSURE * size)]
        others = self._rng.permutation(np.setdiff1d(rest, first))[: size - len(first)]
        return np.concatenate([first, others])

    def _overspends(self, guess: Guess, forecast: Forecast, batch: Units) -> bool:
        """Whether a further round takes too much of a budget that does not cover the plan."""
        if not self._forecaster.is_short(guess, forecast):
            return False
        left = self._forecaster.affordable_calls(guess, forecast)
        return forecast.bought + len(batch) > _TRAINED * (forecast.bought + left)

    def _delivered(self, prefix: Prefix, guarantees: tuple[ClassPromise, ...]) -> Labelled:
        """Escalate all units that are not kept; those that the money does not reach count as units that differ."""
        purchases, num_rows = self._purchases, self._forecaster.num_rows
        rest = purchases.outside(prefix.units, prefix.guess)
        paid = purchases.affordable(rest)
        unreached = rest[len(paid) :]
        missing = purchases.rows(unreached) + purchases.rows(purchases.failed)
        differ = min(num_rows, prefix.differ + missing)
        self._watcher.drawn(purchases.num_asked + len(paid), 1 - differ / num_rows)
        purchases.buy_in_bulk(paid)
        if self._promise.target is not None and not len(unreached):
            prefix = self._repaired(prefix)
        bought, failed, taught = (np.zeros(len(purchases.copies_U), dtype=bool) for _ in range(3))
        bought[purchases.answered] = True
        failed[purchases.failed] = failed[unreached] = True
        taught[prefix.taught] = True
        kept = prefix.units[~purchases.asked_U[prefix.units]]
        num_failed = int(purchases.copies_U[failed].sum())
        return Labelled(
            answer_U=np.where(bought, purchases.label_U, prefix.guess.answer_U),
            wrong_U=np.where(bought, 0.0, prefix.guess.wrong_U),
            bought_U=bought,
            failed_U=failed,
            asked_U=purchases.asked_U.copy(),
            guess=prefix.guess,
            taught_U=bought & taught,
            num_rows=num_rows,
            num_failed=num_failed,
            allowed=self._forecaster.allowed,
            differ=min(prefix.differ, purchases.rows(kept)) + num_failed,
            forecasts=self._forecasts,
            tests=self._agreement.tests,
            guarantees=guarantees,
            is_second_look=prefix.is_second_look,
            lacking=self._lacking,
        )

    def _repaired(self, prefix: Prefix) -> Prefix:
        """Make up for failures that nothing was set aside for.

        At most so many of the kept units are errors: each error that is found among them, and replaced by the oracle's
        answer, is one less. The least sure ones are bought until the target is kept, all are, or the money ends.
        """
        purchases = self._purchases
        left = prefix.units[~purchases.asked_U[prefix.units]]
        left = left[np.argsort(-prefix.guess.wrong_U[left], kind="stable")]
        while prefix.copies and len(left):
            missing = prefix.differ + purchases.rows(purchases.failed) - self._forecaster.allowed
            if missing <= 0 or prefix.differ == 0:
                break
            batch = purchases.affordable(left[: max(8, math.ceil(2 * missing / prefix.copies))])
            if len(batch) == 0:
                break
            purchases.buy(batch)
            answered = np.intersect1d(batch, purchases.answered)
            wrong = purchases.label_U[answered] != prefix.guess.answer_U[answered]
            prefix = replace(prefix, differ=max(0, prefix.differ - prefix.copies * int(wrong.sum())))
            left = left[len(batch) :]
        return prefix

    def _guess(self) -> Guess:
        answered = self._purchases.answered
        return self._side.fit(answered, self._purchases.label_U[answered])
