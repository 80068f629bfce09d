"""What the traffic of a trial shows about a challenger: good enough, refuted, or neither.

An event may happen at each request that the challenger answers: it fails, it is slow, or an item is lost. Let x in
[0, 1] be the event, or the share of the request's items with it. A = 1 if the request was audited, pi >= s is the
probability of the audit, and s the announced floor of pi. Then

    X = s A x / pi  in [0, 1]        K = mean over bets b of  prod_i (1 - b (X_i - s_i limit))

is a supermartingale as long as the mean of x is at least `limit`, given the past. So K >= 1 / delta shows that the mean
lies below the limit (betting, arXiv 2010.09686), and earlier stages count in later ones. Conversely, `RateAlarm` can
refute at any time that the mean stays below the limit. A requested answer of the large model that has not come counts
as a disagreement when the challenger must prove itself, and as an agreement when it is to be refuted.

Shapes: N requests, in their order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logsumexp

from kcm.certification.monitoring.alarm import RateAlarm
from kcm.config import Config

Verdict = Literal["pass", "undecided", "refuted"]

_BETS = np.array([0.99, 0.5, 0.25, 0.1, 0.03])
CheckName = Literal["errors", "slow", "disagreement"]


@dataclass(frozen=True, eq=False)
class Requests:
    """Requests that one version took in a trial.

    `stage` [N] and `num_items` [N]; `failed` [N] bool; `seconds` [N], NaN where it failed; `lost_low` and `lost_high`
    [N]: the least and the greatest mean of A x / pi over the items of a request, where x is a kept item on which the
    challenger disagrees with the large model; `share` [N]: the floor of pi, in (0, 1].
    """

    stage: NDArray[np.int64]
    num_items: NDArray[np.int64]
    failed: NDArray[np.bool_]
    seconds: NDArray[np.float64]
    lost_low: NDArray[np.float64]
    lost_high: NDArray[np.float64]
    share: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.stage)

    def num_decisions(self, stage: int) -> int:
        """Items of one stage."""
        return int(self.num_items[self.stage == stage].sum())


class Limits(Config):
    """Limits for a challenger; `slow_s` is None if there is nothing to compare its times with."""

    error_rate: float
    slow_s: float | None
    slow_rate: float
    disagreement: float


class Check(Config):
    """One quantity of a trial so far."""

    name: CheckName
    limit: float
    rate: float = Field(description="Measured, or bounded from above if large answers are missing.")
    verdict: Verdict


class StageVerdict(Config):
    """What a stage of a trial has shown."""

    stage: int
    share: float
    num_decisions: int
    num_requests: int
    verdict: Verdict
    reason: str
    checks: tuple[Check, ...] = ()


def judge(
    requests: Requests, limits: Limits, delta: float, *, stage: int, share: float, num_stages: int
) -> StageVerdict:
    """The verdict on a challenger after the requests of this stage and those before.

    `delta` is the probability that a bad challenger passes everything, or that a good challenger is ever refuted.
    Checks and stages share it.
    """
    spend = delta / (len(get_args(CheckName)) * num_stages)
    ones_N = np.ones(len(requests))
    is_answered_N = ~requests.failed
    checks = [_check("errors", requests.failed, requests.failed, ones_N, limits.error_rate, spend)]
    if limits.slow_s is not None:
        slow = requests.seconds[is_answered_N] > limits.slow_s
        checks.append(_check("slow", slow, slow, ones_N[is_answered_N], limits.slow_rate, spend))
    low, high, floor = (column[is_answered_N] for column in (requests.lost_low, requests.lost_high, requests.share))
    checks.append(_check("disagreement", low, high, floor, limits.disagreement, spend))
    verdicts = [check.verdict for check in checks]
    verdict: Verdict = "refuted" if "refuted" in verdicts else "undecided" if "undecided" in verdicts else "pass"
    return StageVerdict(
        stage=stage,
        share=share,
        num_decisions=requests.num_decisions(stage),
        num_requests=int((requests.stage == stage).sum()),
        verdict=verdict,
        reason=_reason(checks, verdict),
        checks=tuple(checks),
    )


def _check(
    name: CheckName,
    low: NDArray[np.float64] | NDArray[np.bool_],
    high: NDArray[np.float64] | NDArray[np.bool_],
    share: NDArray[np.float64],
    limit: float,
    delta: float,
) -> Check:
    alarm = RateAlarm(limit, delta)
    alarm.observe(low.astype(np.float64), share)
    is_kept = _log_wealth(high.astype(np.float64), share, limit) >= np.log(1 / delta)
    verdict: Verdict = "refuted" if alarm.alarm else "pass" if is_kept else "undecided"
    return Check(name=name, limit=limit, rate=float(high.mean()) if len(high) else 0.0, verdict=verdict)


def _log_wealth(event: NDArray[np.float64], share: NDArray[np.float64], limit: float) -> float:
    """ln K after all requests."""
    gain_N = share * (limit - event)
    return float(logsumexp(np.log1p(_BETS[:, None] * gain_N).sum(axis=1), b=1 / len(_BETS)))


def _reason(checks: Sequence[Check], verdict: Verdict) -> str:
    if verdict == "pass":
        return "errors, time and disagreement stay within their limits"
    matching = [check for check in checks if check.verdict == verdict]
    finding = "exceed their limit" if verdict == "refuted" else "are not shown to stay within their limit"
    return "; ".join(f"{check.name}: {check.rate:.4f} {finding} of {check.limit:.4f}" for check in matching)
