"""Delays and false-alarm rates of the loop's alarms.

    python benchmarks/loop.py alarm    # delay after a jump of regret
    python benchmarks/loop.py drift    # delay after inputs move away, and false alarms

Each takes a minute or two on one core, simulates its table, runs the production functions, and prints what must hold
beside what was found; `--json FILE` writes it.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.pretty import pprint

from benchmarks.machine import machine
from benchmarks.script import options, write
from kcm.certification.monitoring.alarm import RateAlarm
from kcm.certification.monitoring.drift import DistanceReference

COLUMNS = ("figure", "must", "aim", "found")
EPSILON, SHARE, DELTA = 0.02, 0.05, 0.1
PAST, RUNS, DELAY_RUNS = 100_000, 200, 1000
SHIFT = 0.5
STEP = 50  # decisions between two looks at an alarm

RowText = tuple[str, str, str, str]


def alarm_rows() -> list[RowText]:
    """Delay at a jump of regret to twice epsilon after a good past."""
    oracle = math.log(1 / DELTA) / _divergence(2 * EPSILON * SHARE, EPSILON * SHARE)
    rows = []
    for past, must, aim in ((0.0, "3", "1.5"), (EPSILON / 2, "–", "–")):
        delays = np.array([_delay(past, seed) for seed in range(DELAY_RUNS)])
        alarm_delays = delays[delays >= 0]
        rows.append(
            (
                f"delay of the alarm, regret {past:g} -> {2 * EPSILON:g} after {PAST:,} decisions, share {SHARE:g};"
                f" times the oracle's {oracle:,.0f}",
                must,
                aim,
                f"mean {alarm_delays.mean() / oracle:.2f}, median {np.median(alarm_delays) / oracle:.2f}, 95% within"
                f" {np.quantile(alarm_delays, 0.95) / oracle:.2f}; {DELAY_RUNS} runs, {(delays < 0).sum()} alarms "
                "too early",
            )
        )
    return rows


def drift_rows() -> list[RowText]:
    """Inputs that keep their distribution, and inputs that move."""
    steady_delays, shifted_delays = (
        np.array([_drifted(seed, shift) for seed in range(RUNS)]) for shift in (0.0, SHIFT)
    )
    alarm_delays = shifted_delays[shifted_delays >= 0]
    return [
        (
            "false drift alarms over 20,000 inputs, 500 certify rows",
            "<= 10%",
            "–",
            f"{(steady_delays >= 0).sum()} of {RUNS} runs",
        ),
        (
            f"delay of the drift alarm, 16 features, each moved by {SHIFT:g} standard deviations",
            "–",
            "–",
            f"median {np.median(alarm_delays):,.0f} inputs, {len(alarm_delays)} of {RUNS} runs within 20,000",
        ),
    ]


def _delay(past: float, seed: int) -> int:
    """Decisions from the jump to the alarm; -1 for an alarm before the jump."""
    rng = np.random.default_rng(seed)
    alarm = RateAlarm(EPSILON, DELTA)
    alarm.observe(_audited(np.full(PAST, past), SHARE, rng), SHARE)
    if alarm.alarm:
        return -1
    while not alarm.alarm:
        alarm.observe(_audited(np.full(STEP, 2 * EPSILON), SHARE, rng), SHARE)
    return alarm.num_decisions - PAST


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


PARTS: dict[str, Callable[[], list[RowText]]] = {"alarm": alarm_rows, "drift": drift_rows}


def main() -> None:
    """Measure one part and print its rows."""
    parser = options(__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--json", type=Path, help="write the rows here")
    arguments = parser.parse_args()
    started = time.perf_counter()
    rows = PARTS[arguments.part]()
    seconds = time.perf_counter() - started
    results = {"rows": [dict(zip(COLUMNS, row, strict=True)) for row in rows], "machine": machine(), "seconds": seconds}
    pprint(results)
    if arguments.json:
        write(arguments.json, results)


if __name__ == "__main__":
    main()
