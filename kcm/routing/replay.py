"""What another route would have kept, lost and cost on logged traffic.

A log tells the answer of a side only where that side was asked, with a known probability. For a route that keeps row i
with probability k_i, O_a = 1 where side a was asked (small or large), p_a the probability of that and r_a whether its
answer was right, the accuracy is estimated by

    IPS     mean of  k z_s r_s + (1 - k) z_l r_l                                  z_a = O_a / p_a
    SNIPS   the same over the mean of  k z_s + (1 - k) z_l
    DR      mean of  k (m_s + z_s (r_s - m_s)) + (1 - k) (m_l + z_l (r_l - m_l))

with m_a a model of r_a that was not fitted on row i. IPS and DR have the true value as their expectation; DR is the
more precise, the better the model is; SNIPS is biased by 1/N and does not leave the range of the figures. What is lost
against the large model alone lies in the kept rows only, and is estimated there: k (z_l r_l - z_s r_s). The small side
is paid for every row, as in a cascade. Where no true labels are known, a kept row on which the two sides differ counts
as lost, which bounds the loss from above. (Horvitz and Thompson 1952; Swaminathan and Joachims 2015; Dudik et al.,
arXiv 1103.4601.)

Intervals have 95% and are those of the mean of independent units (t), linearised for SNIPS. Shapes: N rows.
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
Terms = dict[str, tuple[float, Floats]]
"""Estimate and influence [N] of each estimator; the mean of the influence is 0."""


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

    def seen(self, values: Floats | None) -> Floats:
        """`values` where the side was asked, else 0."""
        assert values is not None
        return np.where(self.asked, values, 0.0)


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
        lost = _figures(self._lost(keep_N), units)
        if effective and not (paired * self._seen_loss()).any():
            _widen(lost, float(keep_N.mean()) * (1 - 0.025 ** (1 / effective)))
        priced = self.small.cost is not None and self.large.cost is not None
        return {
            "kept": float(keep_N.mean()),
            "call_rate": float(1 - keep_N.mean()),
            "lost": lost,
            "accuracy": None if self.differs is not None else _figures(self._accuracy(keep_N), units),
            "cost": _figures(self._cost(keep_N), units) if priced else None,
            "effective_rows": effective,
        }

    def _paired_weight(self, keep_N: Floats) -> Floats:
        """Of the rows that tell something of the loss: those where both sides were asked, else either of them."""
        both = self.small.weight * self.large.weight
        return keep_N * (both if both.any() else self.small.weight + self.large.weight)

    def _seen_loss(self) -> Floats:
        if self.differs is not None:
            return np.where(self.small.asked & self.large.asked, self.differs, 0.0)
        return np.abs(self.large.seen(self.large.correct) - self.small.seen(self.small.correct))

    def _lost(self, keep_N: Floats) -> Terms:
        small, large = self.small, self.large
        if self.differs is not None:
            assert self.differs_model is not None
            weight = small.weight * large.weight
            differs = np.where(weight > 0, self.differs, 0.0)
            return {
                "ips": _mean(keep_N * weight * differs),
                "snips": _kept_mean(keep_N, (weight, differs, 1.0)),
                "dr": _mean(keep_N * _corrected(self.differs_model, weight, differs)),
            }
        r_s, r_l = small.seen(small.correct), large.seen(large.correct)
        corrected = _corrected(large.correct_model, large.weight, r_l) - _corrected(
            small.correct_model, small.weight, r_s
        )
        return {
            "ips": _mean(keep_N * (large.weight * r_l - small.weight * r_s)),
            "snips": _kept_mean(keep_N, (large.weight, r_l, 1.0), (small.weight, r_s, -1.0)),
            "dr": _mean(keep_N * corrected),
        }

    def _accuracy(self, keep_N: Floats) -> Terms:
        small, large = self.small, self.large
        r_s, r_l = small.seen(small.correct), large.seen(large.correct)
        value = keep_N * small.weight * r_s + (1 - keep_N) * large.weight * r_l
        weight = keep_N * small.weight + (1 - keep_N) * large.weight
        corrected = keep_N * _corrected(small.correct_model, small.weight, r_s) + (1 - keep_N) * _corrected(
            large.correct_model, large.weight, r_l
        )
        return {"ips": _mean(value), "snips": _ratio(value, weight), "dr": _mean(corrected)}

    def _cost(self, keep_N: Floats) -> Terms:
        """The small side of every row, and the large one of those that are not kept."""
        small, large, called = self.small, self.large, 1 - keep_N
        assert small.cost_model is not None
        assert large.cost_model is not None
        c_s, c_l = small.seen(small.cost), large.seen(large.cost)
        every = np.ones(len(self))
        corrected = _corrected(small.cost_model, small.weight, c_s) + called * _corrected(
            large.cost_model, large.weight, c_l
        )
        first = _kept_mean(every, (small.weight, c_s, 1.0))
        second = _kept_mean(called, (large.weight, c_l, 1.0))
        return {
            "ips": _mean(small.weight * c_s + called * large.weight * c_l),
            "snips": (first[0] + second[0], first[1] + second[1]),
            "dr": _mean(corrected),
        }


def _corrected(model: Floats, weight: Floats, value: Floats) -> Floats:
    return model + weight * (value - model)


def _mean(value: Floats) -> tuple[float, Floats]:
    mean = float(value.mean())
    return mean, value - mean


def _ratio(value: Floats, weight: Floats) -> tuple[float, Floats]:
    """The weighted mean, and its linearisation; NaN where no row weighs anything."""
    total = float(weight.mean())
    if total == 0:
        return math.nan, np.full(len(value), math.nan)
    ratio = float(value.mean()) / total
    return ratio, (value - ratio * weight) / total


def _kept_mean(keep_N: Floats, *parts: tuple[Floats, Floats, float]) -> tuple[float, Floats]:
    """The share that is kept, which is known, times weighted means (weight, value, sign) over the kept rows."""
    kept = float(keep_N.mean())
    if kept == 0:
        return 0.0, np.zeros(len(keep_N))
    ratios = [(sign, *_ratio(keep_N * weight * value, keep_N * weight)) for weight, value, sign in parts]
    mean = sum(sign * ratio for sign, ratio, _ in ratios)
    influence = np.sum([sign * each for sign, _, each in ratios], axis=0)
    return kept * mean, kept * influence + (keep_N - kept) * mean


def _figures(terms: Terms, units: Units) -> dict[str, Any]:
    """Estimate and interval of each estimator; None where the log tells nothing."""
    found: dict[str, Any] = {}
    for name, (estimate, influence_N) in terms.items():
        if math.isnan(estimate):
            found[name] = None
            continue
        half = _half_width(influence_N, units)
        found[name] = {"estimate": estimate, "interval": [estimate - half, estimate + half]}
    return found


def _half_width(influence_N: Floats, units: Units) -> float:
    summed = np.bincount(units.code, influence_N) if units.grouped else influence_N
    variance = units.count / (units.count - 1) * float((summed**2).sum()) / len(influence_N) ** 2
    return float(t.ppf(0.975, units.count - 1)) * math.sqrt(variance)


def _widen(figures: dict[str, Any], high: float) -> None:
    """Nothing was lost among the rows that tell of it: the upper end is that of an exact test, not 0."""
    for found in figures.values():
        if found is not None:
            found["interval"][1] = max(found["interval"][1], high)


def thresholds_by_share(score_N: Floats, shares: Sequence[float]) -> list[float]:
    """Thresholds that keep about these shares of the rows."""
    return [float(each) for each in np.quantile(score_N, [1 - share for share in shares], method="lower")]
