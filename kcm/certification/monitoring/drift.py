"""Drift of inputs away from the certify rows: a distance with a known limit.

Half of the certify rows define a distance: the distance to the k-th nearest of them. The other half give its
distribution. Among n fresh distances, the share beyond the j-th largest follows Beta(j, n - j + 1) exactly, for any
distribution of rows, so an upper bound on the share holds with a known probability. Without drift, distances exceed
that value no more often than the bound: this is the event for a `RateAlarm`. (A conformal martingale against a fixed
reference is not valid: its p-values all depend on the same rows.)

`DriftReference` describes a version's inputs: distances, labels, how often it escalates and how often it disagrees
with the large model, each with an upper bound from the certify rows. If the learner can measure novelty, it also
counts the inputs that lie far from all known classes (`kcm.cascade.novelty`).

Shapes: N inputs, R reference rows, D features.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcm.certification.pvalues import binomial_upper_bound
from kcm.errors import DataError

NEIGHBOUR = 5  # distances are measured to this nearest reference row
TYPICAL = 0.1  # share of the calibration rows that lie beyond the threshold
FEWEST_ROWS = 100
MOST_ROWS = 1000  # reference rows: each costs one distance per input
ALARM_DELTA = 0.05  # probability of ever calling inputs like the certify rows drifted, if the limits hold
QUANTITIES = ("call_rate", "disagreement", "distance", "labels", "novelty")


@dataclass(frozen=True, eq=False)
class DistanceReference:
    """Reference rows [R, D], the distance beyond which an input is unusual, and the bound on its rate without drift."""

    rows_RD: NDArray[np.float32]
    threshold: float
    limit: float

    @classmethod
    def fit(cls, features_ND: NDArray[np.float32], delta: float, seed: int) -> DistanceReference:
        """From certify rows [N, D]; the limit holds with probability 1 - delta. DataError for fewer than 100 rows."""
        reference, calibration = _halves(features_ND.astype(np.float32), seed)
        reference = reference[:MOST_ROWS]
        return cls(reference, *_typical(_distances(calibration, reference), delta))

    def unusual(self, features_ND: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Whether each input lies farther from the reference rows than the threshold, [N]."""
        return _distances(features_ND.astype(np.float32), self.rows_RD) > self.threshold


@dataclass(frozen=True)
class LabelReference:
    """Labels that were rarely answered on certify rows, and the bound on their rate without drift."""

    rare: frozenset[int]
    limit: float

    @classmethod
    def fit(cls, labels_N: NDArray[np.int64], num_labels: int, delta: float, seed: int) -> LabelReference:
        """From the small model's answers on certify rows; the limit holds with probability 1 - delta.

        Half of the rows decide which labels are rare, the other half how rare. DataError for fewer than 100 rows.
        """
        reference_labels, calibration = _halves(labels_N, seed)
        counts = np.bincount(reference_labels, minlength=num_labels)
        ascending = counts.argsort(kind="stable")
        is_typical = np.cumsum(counts[ascending]) <= TYPICAL * len(reference_labels)
        rare = frozenset(int(label) for label in ascending[is_typical])
        count = int(np.isin(calibration, list(rare)).sum())
        return cls(rare, binomial_upper_bound(count, len(calibration), delta))

    def unusual(self, labels_N: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each answer is one of the rare labels, [N]."""
        return np.isin(labels_N, list(self.rare))


@dataclass(frozen=True)
class NoveltyReference:
    """The distance from all known classes beyond which an input may be novel, and the bound on its rate without drift.

    Once there are too many such inputs, inputs at a distance of `farthest` or more escalate; None if none have to.
    """

    threshold: float
    limit: float
    farthest: float | None


@dataclass(frozen=True, eq=False)
class DriftReference:
    """The inputs among the certify rows, and bounds on what later inputs may look like."""

    distance: DistanceReference
    labels: LabelReference
    call_rate: float
    disagreement: float
    novelty: NoveltyReference | None = None

    @classmethod
    def fit(
        cls,
        features_ND: NDArray[np.float32],
        small_labels_N: NDArray[np.int64],
        num_labels: int,
        keeps_N: NDArray[np.bool_],
        disagrees_N: NDArray[np.bool_],
        delta: float,
        seed: int = 0,
        novelty_N: NDArray[np.float64] | None = None,
        farthest: float | None = None,
    ) -> DriftReference:
        """From certify rows under the deployed policy; all limits hold together with probability 1 - delta.

        `disagrees_N`: whether the small answer differs from the large one; `novelty_N`: distances from all known
        classes. Inputs at a distance of `farthest` or more must escalate once there are too many; if all certify rows
        are nearer, a smaller distance replaces it. DataError for fewer than 100 rows.
        """
        spend, count = delta / (len(QUANTITIES) - (novelty_N is None)), len(keeps_N)
        return cls(
            DistanceReference.fit(features_ND, spend, seed),
            LabelReference.fit(small_labels_N, num_labels, spend, seed),
            call_rate=binomial_upper_bound(int((~keeps_N).sum()), count, spend),
            disagreement=binomial_upper_bound(int((keeps_N & disagrees_N).sum()), count, spend),
            novelty=None
            if novelty_N is None
            else NoveltyReference(*_typical(novelty_N, spend), _amid(farthest, novelty_N)),
        )

    def limits(self) -> dict[str, float]:
        """The limits by quantity, without quantities that may take any value and so cannot drift."""
        novelty = self.novelty.limit if self.novelty else 0.0
        values = (self.call_rate, self.disagreement, self.distance.limit, self.labels.limit, novelty)
        return {name: value for name, value in zip(QUANTITIES, values, strict=True) if 0 < value < 0.99}

    def rows(self) -> NDArray[np.float32]:
        """The reference rows, [R, D]."""
        return self.distance.rows_RD

    def figures(self) -> dict[str, Any]:
        """Everything except the rows, as plain values."""
        return {
            "threshold": self.distance.threshold,
            "distance": self.distance.limit,
            "rare": sorted(self.labels.rare),
            "labels": self.labels.limit,
            "call_rate": self.call_rate,
            "disagreement": self.disagreement,
            "novelty": self.novelty and asdict(self.novelty),
        }

    @classmethod
    def of(cls, rows_RD: NDArray[np.float32], figures: Mapping[str, Any]) -> DriftReference:
        """The reference from the values of `rows` and `figures`."""
        return cls(
            DistanceReference(rows_RD, figures["threshold"], figures["distance"]),
            LabelReference(frozenset(figures["rare"]), figures["labels"]),
            figures["call_rate"],
            figures["disagreement"],
            NoveltyReference(**novelty) if (novelty := figures.get("novelty")) else None,
        )


def _halves(rows_N: NDArray[Any], seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """The rows in two random halves: one for reference, one for calibration. DataError for fewer than FEWEST_ROWS."""
    if len(rows_N) < FEWEST_ROWS:
        raise DataError(f"{len(rows_N)} rows", where="drift", hint=f"Give at least {FEWEST_ROWS} certify rows")
    reference, calibration = np.array_split(rows_N[np.random.default_rng(seed).permutation(len(rows_N))], 2)
    return reference, calibration


def _typical(values_N: NDArray[np.floating], delta: float) -> tuple[float, float]:
    """The value that a share of TYPICAL exceeds, and a bound on the rate of larger values at confidence 1 - delta."""
    ascending_N = np.sort(values_N)
    count = max(1, round(TYPICAL * len(ascending_N)))
    return float(ascending_N[-count]), binomial_upper_bound(count - 1, len(ascending_N), delta)


def _amid(farthest: float | None, novelty_N: NDArray[np.float64]) -> float | None:
    """`farthest`; or if all certify rows are nearer, the geometric mean of it and the largest distance of these rows.

    Rows of unknown classes can lie close together. Then many rows of the next unknown class are just below `farthest`.
    """
    known = float(novelty_N.max())
    return math.sqrt(known * farthest) if farthest is not None and known < farthest else farthest


def _distances(features_ND: NDArray[np.float32], rows_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """The distance of every input to its NEIGHBOUR-th nearest reference row, [N]."""
    squares_R = (rows_RD**2).sum(1)
    distances = []
    for part in np.array_split(features_ND, max(1, len(features_ND) // 1024)):
        squared = (part**2).sum(1)[:, None] + squares_R - 2 * part @ rows_RD.T
        nearest = min(NEIGHBOUR, len(rows_RD)) - 1
        distances.append(np.sqrt(np.maximum(np.partition(squared, nearest, axis=1)[:, nearest], 0)))
    return np.concatenate(distances)
