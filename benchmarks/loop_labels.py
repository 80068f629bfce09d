"""How many labels a certificate takes that a person gives on disagreements alone, beside those of uniform labelling."""

from __future__ import annotations

import bisect
import math

import numpy as np
from scipy.stats import binom

from kcm.certify.labelled import LabelledTest, LabelledTraffic
from kcm.certify.ledger import look_delta
from kcm.certify.traffic import Traffic

EPSILON, DELTA = 0.02, 0.1
ASKED, RUNS = 2000, 100  # answers of the large model for kept items in a window that is labelled

RowText = tuple[str, str, str, str]


def label_rows() -> list[RowText]:
    """Labels up to a certificate, for a challenger that disagrees more than it loses, at equal kept share.

    It differs more than it may lose: without labels no number of decisions would certify it.
    """
    delta, rows = look_delta(DELTA, 1), []
    for disputed, losing in ((0.03, 0.1), (0.05, 0.1), (0.1, 0.05), (0.1, 0.1)):
        share, regret = 0.05, disputed * losing
        ours = np.array([_labels_needed(seed, disputed, losing, share, delta) for seed in range(RUNS)])
        uniform = np.array([_labels_needed(seed, 1.0, regret, 1.0, delta) for seed in range(RUNS)])
        fixed = _binomial_labels(regret, delta)
        least = min(float(np.median(uniform)), fixed)
        rows.append(
            (
                f"labels for a certificate at epsilon {EPSILON:g}: challenger differs on {disputed:.0%} and loses"
                f" {regret:.2%}, audit share {share:.0%}",
                "both stated",
                "a tenth",
                f"{np.median(ours):.0f} on disagreements, uniform {np.median(uniform):.0f} (betting) or {fixed}"
                f" (binomial): 1/{least / np.median(ours):.0f}; without labels never",
            )
        )
    return rows


def _labels_needed(seed: int, disputed: float, losing: float, share: float, delta: float) -> float:
    """Labels, in the frozen order, up to the one with which the test stops; infinite where the window ends first."""
    rng = np.random.default_rng(seed)
    num = round(ASKED / share)
    asked, disagrees = rng.random(num) < share, rng.random(num) < disputed
    order, lost = rng.random(num), rng.random(num) < losing
    traffic = Traffic(
        score=np.ones(num), asked=asked, probability=np.full(num, share), disagrees=disagrees, floor=share
    )
    shown = np.flatnonzero(asked & disagrees)
    shown = shown[np.argsort(order[shown])]

    def certified(number: int) -> bool:
        answered = np.zeros(num, dtype=bool)
        answered[shown[:number]] = True
        labelled = LabelledTraffic(
            traffic=traffic,
            threshold=0.0,
            drawn=asked & disagrees,
            label_probability=np.ones(num),
            answered=answered,
            lost=lost,
            order=order,
            floor=share,
        )
        return LabelledTest(labelled.units, EPSILON, delta).certified

    needed = bisect.bisect_left(range(len(shown) + 1), True, key=certified)
    return float(needed) if needed <= len(shown) else math.inf


def _binomial_labels(regret: float, delta: float) -> int:
    """Uniform labels with which the exact test passes in half of all draws."""
    number = 100
    while binom.cdf(_affordable(number, delta), number, regret) < 0.5:
        number += 10
    return number


def _affordable(number: int, delta: float) -> int:
    """The most losses among `number` labels that refute a loss of epsilon; -1: not even none."""
    most = int(binom.ppf(delta, number, EPSILON))
    return most if binom.cdf(most, number, EPSILON) <= delta else most - 1
