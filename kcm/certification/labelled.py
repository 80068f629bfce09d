"""Certifying a challenger with labels on its disagreements with the large model, and on nothing else.

If the frozen challenger keeps an item and agrees with the large model, it loses nothing, whatever the label is. An
annotator labels the other kept items, each drawn with a known probability rho. The notation is that of
`kcm.certification.traffic`. Q = 1 if an item was drawn, y is its label, and L the large answer if it was requested.
With f the least pi rho,

    X = f (A / pi) (Q / rho) 1[g' > t] 1[S' != y, L = y]  in [0, 1]      a = f epsilon

has the mean f regret(t). With rho = f / pi, X is 0 or 1: the answer of an escalated item always exists, the answer of a
kept item rarely does, so escalated items are drawn as rarely. An item that the annotator skipped counts as lost. X of a
unit is the mean over its items. Units are assumed exchangeable and come in a frozen random order, so

    K_m = mean over nu of  prod_{u<=m} (1 - nu (X_u - a))        p = 1 / max_m K_m

is a p-value of H0: regret >= epsilon, and may be read after any unit whose drawn items, and all earlier ones, have been
answered (betting, arXiv 2010.09686, with constant bets, which need not know how much of the window an annotator will
label). This certifies windows whose share of disagreements is too large for `TrafficPath`.

Above the threshold t for which the labels were drawn, fewer items are kept, so X(t') <= X(t), and a decided unit needs
no further labels: p(t') <= p(t) for t' > t. So the path from escalate-all down to t may use any grid, and stops where p
exceeds delta (fixed-sequence testing, arXiv 2110.01052): it certifies the searched threshold, or the closest stricter
threshold that the same labels allow.

Annotators make errors too. If a label hides a loss with probability at most eta, whatever the item, the mean of X by
the labels is at least (1 - eta) times the mean by the truth: the test then uses (1 - eta) epsilon.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import logsumexp

from kcm.cascade.table import ColumnTable
from kcm.certification.betting import fewest_without_loss, largest_level
from kcm.certification.threshold_paths import ThresholdPath
from kcm.certification.traffic import Traffic

_BETS = np.array([0.9, 0.5, 0.25])


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledUnits(ColumnTable):
    """`num_units` units in their frozen order, and their items [M] that were given to an annotator.

    `place`: the position of the item's unit, from 0. `weight`: the increase of the unit's X if the item is lost.
    `score`: the challenger's gate score. `answered`: whether the item has been labelled or skipped. `lost`: whether, by
    that label, the small answer is wrong and the large one right, or the item was skipped. `floor`: the least pi rho.
    `noise`: eta, the largest probability that a label is wrong.
    """

    num_units: int
    floor: float
    place: NDArray[np.int64]
    weight: NDArray[np.float64]
    score: NDArray[np.float64]
    answered: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    noise: float = 0.0

    @classmethod
    def of(
        cls,
        traffic: Traffic,
        *,
        drawn: NDArray[np.bool_],
        label_probability: NDArray[np.float64],
        order: NDArray[np.float64],
        answered: NDArray[np.bool_],
        lost: NDArray[np.bool_],
        floor: float,
        noise: float = 0.0,
    ) -> LabelledUnits:
        """A window with the annotators' answers to the `drawn` items; every column has shape [N].

        `label_probability`: rho, for drawn items. `order`: the position of the item's unit, frozen before any label was
        seen.
        """
        unit_N = np.arange(len(traffic)) if traffic.unit is None else pd.factorize(traffic.unit)[0]
        num_units = int(unit_N.max(initial=-1)) + 1
        order_U = np.zeros(num_units)
        order_U[unit_N] = order
        place_U = np.empty(num_units, dtype=np.int64)
        place_U[np.argsort(order_U, kind="stable")] = np.arange(num_units)
        weight_N = floor / (traffic.probability * label_probability * np.bincount(unit_N)[unit_N])
        return cls(
            num_units=num_units,
            floor=floor,
            place=place_U[unit_N][drawn],
            weight=weight_N[drawn],
            score=traffic.score[drawn],
            answered=answered[drawn],
            lost=lost[drawn],
            noise=noise,
        )

    def above(self, threshold: float) -> LabelledUnits:
        """The same at a stricter threshold: items at or below it are escalated, and need no label."""
        return self.select(self.score > threshold)


class LabelledTest:
    """The test of H0: the challenger loses at least epsilon, over the decided units in the frozen order."""

    def __init__(self, units: LabelledUnits, epsilon: float, delta: float) -> None:
        self.epsilon, self.delta = epsilon, delta
        self.num_units, self._floor = units.num_units, units.floor * (1 - units.noise)
        self.num_decided = int(units.place[~units.answered].min(initial=units.num_units))
        is_loss_N = units.answered & units.lost
        x_U = np.bincount(units.place[is_loss_N], units.weight[is_loss_N], units.num_units)
        self._decided = x_U[: self.num_decided]

    @property
    def p_value(self) -> float:
        """p-value of H0 from the units decided so far; it never rises as more are decided."""
        return math.exp(-self._log_wealth(self._floor * self.epsilon))

    @property
    def certified(self) -> bool:
        """Whether the loss is below epsilon with probability 1 - delta; then no further label is needed."""
        return self.p_value <= self.delta

    @property
    def bound(self) -> float:
        """Upper confidence bound, at delta, on the accuracy that the challenger loses against the large model."""
        return largest_level(lambda loss: self._log_wealth(self._floor * loss), math.log(1 / self.delta))

    @property
    def fewest_units(self) -> int:
        """The fewest units that could certify anything, with none of them lost."""
        return fewest_without_loss(_BETS, 1 / len(_BETS), self._floor * self.epsilon, self.delta)

    def _log_wealth(self, level: float) -> float:
        """max_m ln K_m over the units decided so far; at least 0, the wealth before any bet."""
        paths = np.cumsum(np.log1p(-_BETS[:, None] * (self._decided - level)), axis=1)
        return max(0.0, float(logsumexp(paths, axis=0, b=1 / len(_BETS)).max(initial=0.0)))


class LabelledPath(ThresholdPath):
    """The path from `escalate all` to the threshold for which the labels were drawn; nothing is known below it."""

    def __init__(self, units: LabelledUnits, threshold: float, epsilon: float, delta: float) -> None:
        self._units, self._threshold = units, threshold
        self._epsilon, self._delta = epsilon, delta
        test = LabelledTest(self._units, epsilon, delta)
        self.num_units, self.fewest_units = test.num_units, test.fewest_units

    def certified(self) -> float:
        """The lowest threshold, from the labels' own up, at which they suffice; +inf if they never do."""
        return lowest_certified(self._units, self._threshold, self._epsilon, self._delta)

    def p_value(self, threshold: float) -> float:
        """The p-value of the items above a threshold; 1 below the labels' own threshold."""
        return 1.0 if threshold < self._threshold else self._test(threshold).p_value

    def upper_bound(self, threshold: float) -> float:
        """Upper confidence bound, at delta, on the loss at a threshold; 1 below the labels' own threshold."""
        return 1.0 if threshold < self._threshold else self._test(threshold).bound

    def _test(self, threshold: float) -> LabelledTest:
        return LabelledTest(self._units.above(threshold), self._epsilon, self._delta)


def lowest_certified(units: LabelledUnits, threshold: float, epsilon: float, delta: float) -> float:
    """The lowest threshold, from `threshold` up, that is certified together with all above it; +inf if none is.

    The p-value changes only at the scores of drawn items, and never falls with the threshold.
    """
    steps = [threshold, *np.unique(units.score[units.score > threshold]).tolist()]

    def passes(step: float) -> bool:
        return LabelledTest(units.above(step), epsilon, delta).certified

    position = bisect.bisect_left(steps, True, key=passes)
    return float(steps[position]) if position < len(steps) else math.inf
