"""What a certificate will leave to the small side: a forecast by the rows that choose, before certify rows are read.

N rows in U units.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.search import SearchResult
from kcm.certification.certificate import CertificateConfig, Choices, certify_policy
from kcm.metrics.intervals import Units, resampled_error

NUM_DRAWS, LEVEL = 20, 0.8


@dataclass(frozen=True)
class CertificateForecast:
    """The share of rows that a certified policy is expected to keep, with an 80% interval, and its accuracy.

    `keep_rates` and `accuracies` [M] are the results of the draws; `drawn_ratio` is the one of `resampled_error`. Every
    collaborator is rehearsed on the same draws.
    """

    keep_rate: float
    low: float
    high: float
    accuracy: float
    keep_rates: tuple[float, ...] = ()
    accuracies: tuple[float, ...] = ()
    drawn_ratio: float = 0.0

    @classmethod
    def of(cls, figures: Mapping[str, Any]) -> CertificateForecast:
        """Read what `figures` wrote."""
        draws = figures["forecast_draws"]
        return cls(
            keep_rate=figures["forecast"],
            low=figures["forecast_low"],
            high=figures["forecast_high"],
            accuracy=figures["forecast_accuracy"],
            keep_rates=tuple(draws["keep_rates"]),
            accuracies=tuple(draws["accuracies"]),
            drawn_ratio=draws["drawn_ratio"],
        )

    @property
    def figures(self) -> dict[str, Any]:
        """The forecast among the objectives of a trial."""
        return {
            "forecast": self.keep_rate,
            "forecast_low": self.low,
            "forecast_high": self.high,
            "forecast_accuracy": self.accuracy,
            "forecast_draws": {
                "keep_rates": self.keep_rates,
                "accuracies": self.accuracies,
                "drawn_ratio": self.drawn_ratio,
            },
        }

    @property
    def summary(self) -> dict[str, float]:
        """The forecast without its draws."""
        return {name: getattr(self, name) for name in ("keep_rate", "low", "high", "accuracy")}

    def lead(self, other: CertificateForecast, column: Literal["keep_rates", "accuracies"]) -> tuple[float, float]:
        """By how much this forecast exceeds `other`, and the standard error of that difference; 0 without draws.

        The difference is paired by draw: what a draw does to both cancels out. The draws share rows, so the error is
        that of `resampled_error`: an upper bound, since a certified threshold is no linear statistic of its rows.
        """
        difference_M = np.subtract(getattr(self, column), getattr(other, column))
        if len(difference_M) < 2:
            return 0.0, 0.0
        return float(difference_M.mean()), resampled_error(difference_M, self.drawn_ratio)


def forecast_certificate(
    search: Callable[[ScoredOutcomes], SearchResult],
    rows: ScoredOutcomes,
    num_certify: int,
    config: CertificateConfig,
    delta: float,
) -> CertificateForecast:
    """Rehearse search and certificate on draws of `rows`, with as many rows certifying as there are certify rows.

    Each draw takes `num_certify` rows, in whole units, for the certificate; all other rows search, and tell what the
    certified policy keeps. Only rows that choose are read, so a choice by this figure spends no delta.

    A mean over n of N units differs from the mean of all N with variance sigma^2 (1/n - 1/N), and from the mean of n
    new units with variance sigma^2 (1/n + 1/N): the quantiles of the draws are moved apart by the root of the ratio.
    If more than half of the rows would have to certify, they are drawn with replacement from half of them, which has
    the second variance.
    """
    if Units(rows.group, len(rows)).count < 2:
        return CertificateForecast(0.0, 0.0, 1.0, float(rows.large_correct.mean()))
    choices: Choices = {}
    shares, accuracies = [], []
    for certify, rest in _draws(rows, num_certify):
        deployed, _ = certify_policy(rows, certify, search(rest).policy, config, delta=delta, choices=choices)
        kept_N = deployed.keep(rest.score, rest.task)
        shares.append(float(kept_N.mean()))
        accuracies.append(float(rest.cascade_correct(kept_N).mean()))
    mean = float(np.mean(shares))
    # Of M draws the k-th has k / (M + 1) below it on average; numpy's own rule would leave 72% between the two ends.
    ends = np.quantile(shares, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], method="weibull")
    low, high = np.clip(mean + (ends - mean) * _widening(len(rows), num_certify), 0, 1)
    return CertificateForecast(
        mean,
        min(float(low), mean),
        max(float(high), mean),
        float(np.mean(accuracies)),
        tuple(shares),
        tuple(accuracies),
        _drawn_ratio(len(rows), num_certify),
    )


def _draws(rows: ScoredOutcomes, num_certify: int) -> Iterator[tuple[ScoredOutcomes, ScoredOutcomes]]:
    """Rows that certify, and the others, which search."""
    units = Units(rows.group, len(rows))
    code_N = units.code if units.grouped else np.arange(len(rows))
    by_unit = np.split(np.argsort(code_N, kind="stable"), np.cumsum(np.bincount(code_N))[:-1])
    wanted = max(1, round(num_certify * units.count / len(rows)))
    for seed in range(NUM_DRAWS):
        random = np.random.default_rng(seed)
        order = random.permutation(units.count)
        drawn = order[: min(wanted, units.count // 2)]
        rest = np.concatenate([by_unit[unit] for unit in order[len(drawn) :]])
        certify = drawn if len(drawn) == wanted else random.choice(drawn, wanted)
        yield _together(rows, [by_unit[unit] for unit in certify]), rows.select(rest)


def _together(rows: ScoredOutcomes, units: list[NDArray[np.intp]]) -> ScoredOutcomes:
    """The rows of units, of which one may be drawn twice: then they are two."""
    group = np.repeat(np.arange(len(units)), [len(unit) for unit in units]).astype(object)
    return replace(rows.select(np.concatenate(units)), group=None if rows.group is None else group)


def _drawn_ratio(num_rows: int, num_certify: int) -> float:
    """The variance sigma^2 / N of the mean over all draws, divided by that of a draw; see `forecast_certificate`."""
    return num_certify / (num_rows + (num_certify if 2 * num_certify > num_rows else -num_certify))


def _widening(num_rows: int, num_certify: int) -> float:
    """By how much the spread of the draws falls short."""
    if 2 * num_certify > num_rows:
        return 1.0
    return math.sqrt((num_rows + num_certify) / (num_rows - num_certify))
