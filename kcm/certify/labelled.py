"""Certifying a challenger with labels on nothing but its disagreements with the large model.

Where the frozen challenger keeps an item and agrees with the large model it loses nothing, whatever the label is. The
items that are left are put before a person, each with a known probability rho. With the symbols of
`kcm.certify.traffic`, Q = 1 where an item was drawn and y its label, where L was asked for, and f the least pi rho,

    X = f (A / pi) (Q / rho) 1[g' > t] 1[S' != y, L = y]  in [0, 1]      a = f epsilon

has the mean f regret(t). With rho = f / pi it is 0 or 1: an escalated item, whose answer is always there, says no more
than a kept one, whose answer seldom is, and is drawn as seldom. An item that the person skipped counts as lost. X of a
unit is the mean over its items. Units are taken as exchangeable and come in a frozen random order, so that

    K_m = mean over nu of  prod_{u<=m} (1 - nu (X_u - a))        p = 1 / max_m K_m

is a p-value of H0: regret >= epsilon, and may be looked at after any unit up to which every drawn item has been
answered (betting, arXiv 2010.09686, with constant bets: they need not know how long the window is, of which a person
labels a part). This certifies where the share of disagreements itself is too large for `TrafficPath`.
"""

from __future__ import annotations

import bisect
import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import logsumexp

from kcm.certify.traffic import Traffic
from kcm.errors import DataError

_BETS = np.array([0.9, 0.5, 0.25])


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledTraffic:
    """A window with what a person said of its disagreements above one frozen threshold; every column has shape [N].

    `drawn`: whether the item was put before a person; `label_probability`: rho, read where the challenger keeps the
    item and disagrees; its product with the probability of the large answer is `floor` at the least. `answered`:
    whether the person labelled or skipped it by now. `lost`: whether the small answer is wrong and the large one right
    by that label, or the item was skipped. `order`: the place of the item's unit, frozen before any label was seen.

    Raises DataError for columns of different lengths, a probability below the floor, and items that were drawn though
    the challenger does not keep them or agrees.
    """

    traffic: Traffic
    threshold: float
    drawn: NDArray[np.bool_]
    label_probability: NDArray[np.float64]
    answered: NDArray[np.bool_]
    lost: NDArray[np.bool_]
    order: NDArray[np.float64]
    floor: float

    def __post_init__(self) -> None:
        for name in ("drawn", "label_probability", "answered", "lost", "order"):
            if getattr(self, name).shape != (len(self.traffic),):
                raise DataError(f"shape {getattr(self, name).shape}, expected {(len(self.traffic),)}", where=name)
        least_N = self.floor / self.traffic.probability * (1 - 1e-9)
        if not ((self.label_probability >= least_N) & (self.label_probability <= 1))[self.disputed].all():
            raise DataError(
                f"the probability of a label is above 1, or below {self.floor} together with that of the large answer",
                where="label_probability",
            )
        if (self.drawn & ~self.disputed).any():
            raise DataError("an item was put before a person on which nothing depends", where="drawn")

    @property
    def disputed(self) -> NDArray[np.bool_]:
        """Items that the challenger keeps, of which the large answer was asked for, and on which the two differ."""
        traffic = self.traffic
        return traffic.asked & traffic.disagrees & (traffic.score > self.threshold)


class LabelledTest:
    """The test of H0: the challenger loses at least epsilon, over the units that are decided in the frozen order."""

    def __init__(self, labelled: LabelledTraffic, epsilon: float, delta: float) -> None:
        traffic = labelled.traffic
        self.epsilon, self.delta = epsilon, delta
        self._floor = labelled.floor
        unit_N = np.arange(len(traffic)) if traffic.unit is None else pd.factorize(traffic.unit)[0]
        self.num_units = int(unit_N.max(initial=-1)) + 1
        loses = labelled.drawn & labelled.lost & labelled.answered
        weight_N = np.where(loses, self._floor / (traffic.probability * labelled.label_probability), 0.0)
        x_U = np.bincount(unit_N, weight_N, self.num_units) / np.bincount(unit_N, minlength=self.num_units)
        place_U = np.zeros(self.num_units)
        place_U[unit_N] = labelled.order
        order = np.argsort(place_U, kind="stable")
        open_U = np.bincount(unit_N, labelled.drawn & ~labelled.answered, self.num_units) > 0
        waiting = np.flatnonzero(open_U[order])
        self.num_decided = int(waiting[0]) if len(waiting) else self.num_units
        self._decided = x_U[order][: self.num_decided]

    @property
    def p_value(self) -> float:
        """p-value of H0 by what is decided so far; it only falls as more is decided."""
        return math.exp(-self._log_wealth(self._floor * self.epsilon))

    @property
    def certified(self) -> bool:
        """Whether the loss is below epsilon with probability 1 - delta: no further label is needed."""
        return self.p_value <= self.delta

    @property
    def bound(self) -> float:
        """Upper confidence bound, at delta, on the accuracy that the challenger loses against the large model."""

        def excess(loss: float) -> float:
            return self._log_wealth(self._floor * loss) - math.log(1 / self.delta)

        return 1.0 if excess(1.0) <= 0 else float(brentq(excess, 0.0, 1.0, xtol=1e-7)) + 1e-7

    @property
    def fewest_units(self) -> int:
        """Fewest units that could certify anything: none of them lost."""

        def enough(num_units: int) -> bool:
            logs = num_units * np.log1p(_BETS * self._floor * self.epsilon)
            return bool(logsumexp(logs, b=1 / len(_BETS)) >= math.log(1 / self.delta))

        high = 1
        while not enough(high):
            high *= 2
        return bisect.bisect_left(range(high + 1), True, lo=high // 2, key=enough)

    def _log_wealth(self, level: float) -> float:
        """max_m ln K_m over the units decided so far; at least 0, the wealth before any bet."""
        paths = np.cumsum(np.log1p(-_BETS[:, None] * (self._decided - level)), axis=1)
        return max(0.0, float(logsumexp(paths, axis=0, b=1 / len(_BETS)).max(initial=0.0)))


class LabelledPath:
    """The path with a single step, from `escalate all` to the threshold that the labels were drawn for.

    The loss only grows as the threshold falls, so that what holds at that threshold holds above it.
    """

    def __init__(self, labelled: LabelledTraffic, epsilon: float, delta: float) -> None:
        self._test, self._threshold = LabelledTest(labelled, epsilon, delta), labelled.threshold
        self.num_units = self._test.num_units
        self.fewest_units = self._test.fewest_units

    def certified(self) -> float:
        """The threshold of the labels where they suffice, else +inf."""
        return self._threshold if self._test.certified else math.inf

    def deployable(self, lowest: float, highest: float) -> float | None:
        """Every threshold from the certified one upwards holds."""
        return highest if highest >= lowest else None

    def p_value(self, threshold: float) -> float:
        """That at the threshold of the labels, for any above it; of those below nothing is known."""
        return self._test.p_value if threshold >= self._threshold else 1.0

    def upper_bound(self, threshold: float) -> float:
        """That at the threshold of the labels, for any above it; of those below nothing is known."""
        return self._test.bound if threshold >= self._threshold else 1.0
