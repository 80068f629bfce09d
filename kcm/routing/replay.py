"""What another route would have kept, lost and cost on logged traffic.

A log tells the answer of a side only where that side was asked, with a known probability. For a route that keeps row i
with probability k_i, O_a = 1 where side a was asked (small or large), p_a the probability of that, r_a whether its
answer was right, and m_a a model of r_a that was not fitted on row i, the accuracy is estimated by the mean of

    k d_s + (1 - k) d_l    with    d_a = m_a + O_a / p_a (r_a - m_a)

It is doubly robust: its expectation is the true value whatever the model says, and the better the model, the more
precise it is. What is lost against the large model alone lies in the kept rows only: k (d_l - d_s). The small side is
paid for every row, as in a cascade. Where no true labels are known, a kept row on which the two sides differ counts as
lost, which bounds the loss from above. (Dudik et al., arXiv 1103.4601.)

Intervals have 95% and are those of the mean of independent units (t). Shapes: N rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from kcm.errors import DataError
from kcm.metrics.intervals import Units

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False)
class Side:
    """One side's answers in a log; every column has shape [N].

    `asked`, `probability` of that, `correct` and `cost` where it was asked (elsewhere they are not read; NaN costs are
    not known), and what models say of both for every row.
    """

    asked: Bools
    probability: Floats
    correct: Floats
    correct_model: Floats
    cost: Floats | None = None
    cost_model: Floats | None = None

    @property
    def weight(self) -> Floats:
        """z, [N]."""
        return np.where(self.asked, 1 / self.probability, 0.0)

    @property
    def right(self) -> Floats:
        """d of its correctness, [N]."""
        return _corrected(self.correct_model, self.weight, self.correct)

    @property
    def paid(self) -> Floats:
        """d of its cost, [N]."""
        assert self.cost is not None
        assert self.cost_model is not None
        return _corrected(self.cost_model, self.weight, self.cost)


@dataclass(frozen=True, kw_only=True, eq=False)
class LoggedTraffic:
    """A log of both sides. `differs` and `differs_model` [N] stand where there are no true labels, else None."""

    small: Side
    large: Side
    differs: Floats | None = None
    differs_model: Floats | None = None
    group: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        for name, side in (("small", self.small), ("large", self.large)):
            if not ((side.probability > 0) & (side.probability <= 1)).all():
                raise DataError(
                    f"the probability that the {name} model was asked must lie in (0, 1] in every row",
                    where="propensity",
                    hint="Nothing can be said of rows that had no chance; leave out the time without audits",
                )
        if Units(self.group, len(self)).count < 2:
            raise DataError(f"{len(self)} rows of one unit", where="log", hint="An interval takes two units at least")

    def __len__(self) -> int:
        return len(self.small.asked)

    def replay(self, keep_N: Floats) -> dict[str, Any]:
        """Kept share, loss against the large model alone, accuracy and cost of a route that keeps with `keep_N`.

        `effective_rows`: rows that, asked for sure, would tell as much of the loss; None where nothing is kept.
        """
        units = Units(self.group, len(self))
        paired = self._paired_weight(keep_N)
        effective = float(paired.sum() ** 2 / (paired**2).sum()) if paired.any() else None
        lost = _figure(keep_N * self._difference(), units)
        if effective and not (paired * self._seen_loss()).any():
            # Nothing was lost among the rows that tell of it: the upper end is that of an exact test, not 0.
            exact = float(keep_N.mean()) * (1 - 0.025 ** (1 / effective))
            lost["interval"][1] = max(lost["interval"][1], exact)
        right = keep_N * self.small.right + (1 - keep_N) * self.large.right
        priced = self.small.cost is not None and self.large.cost is not None
        return {
            "kept": float(keep_N.mean()),
            "call_rate": float(1 - keep_N.mean()),
            "lost": lost,
            "accuracy": None if self.differs is not None else _figure(right, units),
            "cost": _figure(self.small.paid + (1 - keep_N) * self.large.paid, units) if priced else None,
            "effective_rows": effective,
        }

    def _paired_weight(self, keep_N: Floats) -> Floats:
        """Of the rows that tell something of the loss: those where both sides were asked, else either of them."""
        both = self.small.weight * self.large.weight
        return keep_N * (both if both.any() else self.small.weight + self.large.weight)

    def _seen_loss(self) -> Floats:
        if self.differs is not None:
            return np.where(self.small.asked & self.large.asked, self.differs, 0.0)
        large, small = (np.where(side.asked, side.correct, 0.0) for side in (self.large, self.small))
        lost: Floats = np.abs(large - small)
        return lost

    def _difference(self) -> Floats:
        """What keeping a row loses, [N]."""
        if self.differs is None:
            return self.large.right - self.small.right
        assert self.differs_model is not None
        return _corrected(self.differs_model, self.small.weight * self.large.weight, self.differs)


def _corrected(model: Floats, weight: Floats, value: Floats) -> Floats:
    """The model, corrected by the values of the rows that have a weight."""
    return model + weight * (np.where(weight > 0, value, model) - model)


def _figure(value_N: Floats, units: Units) -> dict[str, Any]:
    """The mean, and its interval."""
    estimate = float(value_N.mean())
    influence_N = value_N - estimate
    summed = np.bincount(units.code, influence_N) if units.grouped else influence_N
    variance = units.count / (units.count - 1) * float((summed**2).sum()) / len(influence_N) ** 2
    half = float(t.ppf(0.975, units.count - 1)) * math.sqrt(variance)
    return {"estimate": estimate, "interval": [estimate - half, estimate + half]}


def thresholds_by_share(score_N: Floats, shares: Sequence[float]) -> list[float]:
    """Thresholds that keep about these shares of the rows."""
    return [float(each) for each in np.quantile(score_N, [1 - share for share in shares], method="lower")]
