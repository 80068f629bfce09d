"""Would a table save more calls if more of its rows certified, or if none of them tested?

    pip install mlxtend river
    python benchmarks/split_shares.py --clinc data_full.json --banking FOLDER [--write]

Four tables of benchmarks/first_table.py with 1,000 rows, eight draws each, in this process, on features alone. The arms
have the same rows, large model and fresh rows. Settings were frozen before the first draw; its seeds are used nowhere
else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np

from benchmarks.first_table import drawn, measured, ours, thirty_lines
from benchmarks.first_table_rows import READERS, Places
from benchmarks.machine import machine
from benchmarks.script import keep, options

TABLES, NUM_ROWS, SEEDS = ("segments", "mnist", "words", "clinc"), 1000, range(100, 108)
TODAY = "train .65, certify .25, test .10"
ARMS = {
    TODAY: {"train": 0.65, "certify": 0.25},
    "train .65, certify .35": {"train": 0.65, "certify": 0.35},
    "train .55, certify .45": {"train": 0.55, "certify": 0.45},
}


def main() -> None:
    given = options(
        __doc__, assets=True, results="split_shares", data=("clinc", "banking"), features="storage/features"
    ).parse_args()
    places = Places(given.assets, given.clinc, given.banking, given.features)
    draws = []
    for name, seed in product(TABLES, SEEDS):
        table = READERS[name](places)
        for arm, shares in ARMS.items():
            draw = drawn(table, NUM_ROWS, seed, shares)
            draws.append(
                {"table": name, "seed": seed, "arm": arm, **sides(measured(ours, draw), measured(thirty_lines, draw))}
            )
            print(draws[-1], flush=True)
    figures = {"arms": [line(arm, draws) for arm in ARMS], "machine": machine(), "draws": draws}
    print(*figures["arms"], sep="\n")
    if given.write:
        keep("split_shares", figures)


def sides(kcm: Mapping[str, Any], regression: Mapping[str, Any]) -> dict[str, float]:
    """Calls saved by both sides, and whether our promise broke on the fresh rows."""
    return {"kcm": kcm["saved"], "regression": regression["saved"], "broken": kcm["broken"]}


def line(arm: str, draws: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means of an arm in %, and paired differences to today's shares with their standard errors, in points."""
    own, today = ([draw for draw in draws if draw["arm"] == name] for name in (arm, TODAY))
    figures: dict[str, Any] = {"arm": arm, "draws": len(own), "broken": sum(draw["broken"] for draw in own)}
    for side in ("kcm", "regression"):
        gap = 100 * np.array([a[side] - b[side] for a, b in zip(own, today, strict=True)])
        mean = 100 * float(np.mean([draw[side] for draw in own]))
        error = float(gap.std(ddof=1) / np.sqrt(len(gap)))
        figures[side] = [round(value, 1) for value in (mean, float(gap.mean()), error)]
    return figures


if __name__ == "__main__":
    main()
