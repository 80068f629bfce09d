"""How soon the alarms of `kcm.certify` are given, and how often falsely."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from kcm.certify.monitoring.alarm import RateAlarm
from kcm.certify.monitoring.drift import DistanceReference

EPSILON, SHARE, DELTA = 0.02, 0.05, 0.1
PAST, FOREVER, RUNS, DELAY_RUNS = 100_000, 1_000_000, 200, 1000
SHIFT = 0.5
LABELLED = 0.75  # of the losses of a certificate by labels: the others never got one
STEP = 50  # decisions between two looks at an alarm
RAISED, SUSPICIOUS = 0.2, 2.0  # the audit share while something is suspected, and when it is

RowText = tuple[str, str, str, str]


def alarm_rows() -> list[RowText]:
    """Delay at a jump of regret to twice epsilon after a good past, and false alarms."""
    oracle = math.log(1 / DELTA) / _divergence(2 * EPSILON * SHARE, EPSILON * SHARE)
    rows = []
    for past, labelled, must, aim in ((0.0, 1.0, "3", "1.5"), (EPSILON / 2, 1.0, "–", "–"), (0.0, LABELLED, "–", "–")):
        delays = np.array([_delay(past, labelled, seed) for seed in range(DELAY_RUNS)])
        by_labels = f", where labels tell {100 * labelled:.0f}% of the losses" if labelled < 1 else ""
        found = delays[delays >= 0]
        rows.append(
            (
                f"delay of the alarm, regret {past:g} -> {2 * EPSILON:g} after {PAST:,} decisions, share {SHARE:g}"
                f"{by_labels}; times the oracle's {oracle:,.0f}",
                must,
                aim,
                f"mean {found.mean() / oracle:.2f}, median {np.median(found) / oracle:.2f}, 95% within"
                f" {np.quantile(found, 0.95) / oracle:.2f}; {DELAY_RUNS} runs, {(delays < 0).sum()} alarms too early",
            )
        )
    regimes: dict[str, Callable[[int], bool]] = {
        "regret at epsilon": lambda seed: _false([EPSILON], seed),
        "regret 0 and epsilon by turns": lambda seed: _false([0.0, EPSILON] * 10, seed),
        f"regret at epsilon, share raised to {RAISED:g} on suspicion": _false_with_raised_share,
    }
    for name, false in regimes.items():
        number = sum(false(10_000 + seed) for seed in range(RUNS))
        rows.append(
            (f"false alarms over {FOREVER:,} good decisions, {name}", "<= 10%", "–", f"{number} of {RUNS} runs")
        )
    return rows


def drift_rows() -> list[RowText]:
    """Inputs that keep their distribution, and inputs that move."""
    still, moved = (np.array([_drifted(seed, shift) for seed in range(RUNS)]) for shift in (0.0, SHIFT))
    found = moved[moved >= 0]
    return [
        (
            "false drift alarms over 20,000 inputs, 500 certify rows",
            "<= 10%",
            "–",
            f"{(still >= 0).sum()} of {RUNS} runs",
        ),
        (
            f"delay of the drift alarm, 16 features, each moved by {SHIFT:g} standard deviations",
            "–",
            "–",
            f"median {np.median(found):,.0f} inputs, {len(found)} of {RUNS} runs within 20,000",
        ),
    ]


def _delay(past: float, labelled: float, seed: int) -> int:
    """Decisions from the jump to the alarm; -1 where it was given before.

    `labelled` is the share of losses that labels show.
    """
    rng = np.random.default_rng(seed)
    alarm = RateAlarm(EPSILON, DELTA)
    alarm.observe(_audited(np.full(PAST, labelled * past), SHARE, rng), SHARE)
    if alarm.alarm:
        return -1
    while not alarm.alarm:
        alarm.observe(_audited(np.full(STEP, labelled * 2 * EPSILON), SHARE, rng), SHARE)
    return alarm.num_decisions - PAST


def _false(rates: Sequence[float], seed: int) -> bool:
    """Whether there is an alarm in decisions whose rate takes these values, one after the other."""
    rng = np.random.default_rng(seed)
    alarm = RateAlarm(EPSILON, DELTA)
    for rate in rates:
        alarm.observe(_audited(np.full(FOREVER // len(rates), rate), SHARE, rng), SHARE)
    return alarm.alarm


def _false_with_raised_share(seed: int) -> bool:
    rng = np.random.default_rng(seed)
    alarm = RateAlarm(EPSILON, DELTA)
    while alarm.num_decisions < FOREVER and not alarm.alarm:
        share = RAISED if alarm.suspicion > SUSPICIOUS else SHARE
        alarm.observe(_audited(np.full(1000, EPSILON), share, rng), share)
    return alarm.alarm


def _drifted(seed: int, shift: float) -> int:
    """Inputs until the drift alarm, of 20,000; -1 without one. Half of delta goes to the limit, half to the alarm."""
    rng = np.random.default_rng(seed)
    reference = DistanceReference.fit(rng.normal(size=(500, 16)).astype(np.float32), DELTA / 2, seed)
    alarm = RateAlarm(reference.limit, DELTA / 2)
    for _ in range(80):
        alarm.observe(reference.unusual((rng.normal(size=(250, 16)) + shift).astype(np.float32)))
        if alarm.alarm:
            return alarm.num_decisions
    return -1


def _audited(rate_N: NDArray[np.float64], share: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Y of decisions that lose at their rates and are audited with probability `share`."""
    return (rng.random(len(rate_N)) < rate_N * share) / share


def _divergence(p: float, q: float) -> float:
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))
