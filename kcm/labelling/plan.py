"""What is bought: rounds of training as long as they are expected to pay, then the cheapest draw that should hold.

A plan says how far down the ranking to test, and how many units to draw. It is a forecast from calibrated
probabilities: it decides what is bought, never what is proved.
Shapes: M units that are not bought, in the order of the ranking; K lengths; X numbers of errors; G points of a ranking.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, gammaincc, logit

from kcm.certification.finite import fewest_drawn, missed_errors

_NUM_LENGTHS, _NUM_POINTS = 20, 48
_FEW_ERRORS, _MOST_ERRORS = 64, 1024  # that a plan may afford: with more, a draw hardly keeps more
_ERRORS = np.unique(np.geomspace(1, _MOST_ERRORS + 1, 33).astype(np.int64)) - 1


@dataclass(frozen=True)
class DrawPlan:
    """Test the first `num_ranked` units by `num_drawn` draws, of which `most_errors` may be errors.

    `kept` is the expected number of units that the small model answers, `calls` of further calls to the oracle.
    """

    num_ranked: int
    num_drawn: int
    most_errors: int
    kept: float
    calls: float


def cheapest_plan(wrong_M: NDArray[np.float64], allowed: int, delta: float) -> DrawPlan:
    """The plan with the fewest expected calls.

    `wrong_M` are the probabilities that the small model's answers are wrong, in the order of the ranking. At most
    `allowed` undrawn errors are promised.
    """
    num_units = len(wrong_M)
    free = min(max(allowed, 0), num_units)  # so many units may all be wrong: they need no test
    best = DrawPlan(free, 0, 0, float(free), float(num_units - free))
    if allowed < 0 or free == num_units:
        return best
    lengths = np.unique(np.linspace(free + 1, num_units, _NUM_LENGTHS).astype(np.int64))
    most = _ERRORS[max(allowed, _FEW_ERRORS) >= _ERRORS]  # more would be drawn than are promised
    for _ in range(2):  # coarse, then around the best
        plan = _best_of(wrong_M, lengths, most, allowed, delta)
        if plan is None:
            break
        best = min(best, plan, key=lambda candidate: candidate.calls)
        step = max(1, (num_units - free) // _NUM_LENGTHS)
        lengths = np.unique(np.linspace(plan.num_ranked - step, plan.num_ranked + step, 9).astype(np.int64))
        lengths = lengths[(lengths > free) & (lengths <= num_units)]
        near = max(1, plan.most_errors // 4)
        most = np.unique(np.arange(max(0, plan.most_errors - near), plan.most_errors + near + 1, max(1, near // 4)))
    return best


def _best_of(
    wrong_M: NDArray[np.float64],
    lengths_K: NDArray[np.int64],
    most_X: NDArray[np.int64],
    allowed: int,
    delta: float,
) -> DrawPlan | None:
    drawn_KX = fewest_drawn(lengths_K[:, None], most_X, allowed, delta)
    possible_KX = drawn_KX <= lengths_K[:, None]
    if not possible_KX.any():
        return None
    kept_KX = np.zeros(drawn_KX.shape)
    errors_M = np.concatenate([[0.0], np.cumsum(wrong_M)])
    for row, length in enumerate(lengths_K.tolist()):
        rate_X = drawn_KX[row] / length
        points_G = np.unique(np.linspace(0, length, _NUM_POINTS).astype(np.int64))
        mean_XG = rate_X[:, None] * errors_M[points_G]
        holds_XG = gammaincc(most_X[:, None] + 1.0, mean_XG)  # P(Poisson(mean) <= most)
        kept_KX[row] = (1 - rate_X) * np.trapezoid(holds_XG, points_G, axis=1)
    kept_KX = np.where(possible_KX, kept_KX, -1.0)
    best_row, column = divmod(int(kept_KX.argmax()), len(most_X))
    num_kept = float(kept_KX[best_row, column])
    return DrawPlan(
        int(lengths_K[best_row]),
        int(drawn_KX[best_row, column]),
        int(most_X[column]),
        num_kept,
        len(wrong_M) - num_kept,
    )


@dataclass(frozen=True)
class CappedPlan:
    """Keep the first `num_kept` units whatever the draw says, of which `num_drawn` are drawn: all that money allows.

    `errors` is the forecast of the bound on undrawn errors.
    """

    num_kept: int
    num_drawn: int
    errors: int


def capped_plan(wrong_M: NDArray[np.float64], affordable: int, delta: float) -> CappedPlan:
    """The plan with the lowest bound on errors for at most `affordable` further calls."""
    num_units = len(wrong_M)
    errors_M = np.concatenate([[0.0], np.cumsum(wrong_M)])
    affordable = min(affordable, num_units)
    best = CappedPlan(num_units - affordable, 0, num_units - affordable)
    for share in np.linspace(0.02, 1.0, 50):
        drawn = round(share * affordable)
        num_kept = num_units - (affordable - drawn)  # the rest of the money escalates the end of the ranking
        expected = round(drawn * errors_M[num_kept] / num_kept) if num_kept else 0
        bound = missed_errors(num_kept, drawn, min(expected, drawn), delta)
        if bound < best.errors:
            best = CappedPlan(num_kept, drawn, bound)
    return best


_ROUNDS_FITTED, _SLOPE_WEIGHT, _ODDS = 5, 0.3, 1.6


@dataclass(frozen=True)
class Schedule:
    """How much is bought before the draw.

    The pilot has `pilot` units. A further round buys `growth` times what was bought so far: half of it from the third
    of units that the small model is least sure of, which would be escalated in any case, the rest uniformly.
    `slope` is how fast the calls after training are assumed to fall, as a power of what was bought, before rounds have
    shown it. Rounds end if another one is not expected to pay.
    """

    pilot: int
    growth: float
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
