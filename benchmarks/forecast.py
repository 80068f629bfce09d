"""The forecast of what a certificate leaves to the small side, against what it left, on fresh rows.

    python benchmarks/forecast.py --banking FOLDER [--out FILE] [--command 3]

40 runs: tables x sizes x draws, split as benchmarks/first_table.py splits them, with its candidates; which one is
deployed is chosen by the stage `evaluate`. A simulated large model is right on 96% of the rows. `reached` is what the
policy keeps of fresh rows, once the certify rows have certified it; `expected` is its mean over 20 other draws of as
many certify rows, from the fresh rows. `--command` runs so many of the cells through `kcm init` and `kcm run` as well.
The settings of the forecast were frozen on digits, image segments and words of CLINC150, before the first run of these
tables.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.first_table import (
    CERTIFICATE,
    FIRST_LOOK,
    SHARES,
    Candidate,
    Draw,
    Rows,
    candidates,
    commanded,
    deployed,
    scored,
)
from benchmarks.first_table_rows import READERS, Places, reduced_words
from benchmarks.machine import machine
from benchmarks.script import options, write
from kcm.certification.certificate import Choices, certify_policy
from kcm.tasks.readers.reviews import read_reviews

CELLS = {  # labels, and rows given
    "banking": ((30, 1000), (30, 2000), (77, 1000), (77, 2000)),
    "mnist": ((10, 1000), (10, 2000)),
    "reviews": ((2, 1000), (2, 2000)),
}
SEEDS, LARGE_RIGHT, NUM_FRESH, NUM_CERTIFIED = 5, 0.96, 3_000, 20


def main() -> None:
    parser = options(__doc__, True, data=("banking",), features="storage/features")
    parser.add_argument("--command", type=int, default=0, help="so many cells by `kcm run`, too")
    parser.add_argument("--out", type=Path, help="written cell by cell, and gone on with")
    given = parser.parse_args()
    places = Places(given.assets, given.assets, given.banking, given.features)
    found = json.loads(given.out.read_text()) if given.out and given.out.exists() else {"runs": []}
    by_command = given.command
    for name, cells in CELLS.items():
        features, labels = table_of(name, places)
        for (num_labels, num_rows), seed in product(cells, range(SEEDS)):
            about = {"table": name, "labels": num_labels, "rows": num_rows, "seed": seed}
            if any(about.items() <= run.items() for run in found["runs"]):
                continue
            draw = drawn(features, labels, num_labels, num_rows, seed)
            run = about | measured(draw)
            if seed == 0 and by_command > 0:
                run["command"], by_command = commanded(draw), by_command - 1
            found["runs"].append(run)
            print(json.dumps(run), flush=True)
            if given.out:
                write(given.out, found | {"machine": machine(), "summary": summary(found["runs"])})
    for line in summary(found["runs"]):
        print(line)


def table_of(name: str, places: Places) -> tuple[NDArray[np.float32], NDArray[np.intp]]:
    """Features [N, D] and labels [N]; film reviews are read by their words."""
    if name != "reviews":
        table = READERS[name](places)
        return table.features, table.labels
    rows = [row for row in read_reviews(places.assets) if row.task == "movies"]
    labels = np.unique([row.label for row in rows], return_inverse=True)[1]
    return reduced_words([str(row.text) for row in rows]), labels


def drawn(features: NDArray[np.float32], labels: NDArray[np.intp], num_labels: int, num_rows: int, seed: int) -> Draw:
    """Labels, rows and the large model's mistakes by the seed."""
    random = np.random.default_rng([num_labels, num_rows, seed])
    classes = np.sort(random.permutation(labels.max() + 1)[:num_labels])
    used = random.permutation(np.flatnonzero(np.isin(labels, classes)))[: num_rows + NUM_FRESH]
    target = np.searchsorted(classes, labels[used])
    wrong = (target + random.integers(1, num_labels, len(used))) % num_labels
    rows = Rows(features[used], target, np.where(random.random(len(used)) < LARGE_RIGHT, target, wrong))
    place = random.random(num_rows)
    return Draw(
        train=rows.at(np.flatnonzero(place < SHARES["train"])),
        certify=rows.at(np.flatnonzero((place >= SHARES["train"]) & (place < sum(SHARES.values())))),
        fresh=rows.at(np.arange(num_rows, len(used))),
        num_labels=num_labels,
    )


def measured(draw: Draw) -> dict[str, Any]:
    """The forecast of the candidate that is deployed, and what it reached."""
    started = time.process_time()
    tried = list(candidates(draw))
    seconds = time.process_time() - started
    best = deployed(tried)
    summary = {name: figure for name, figure in best.forecast.figures.items() if name != "forecast_draws"}
    return summary | reached(best, draw) | {"cpu_s": round(seconds, 1)}


def reached(candidate: Candidate, draw: Draw) -> dict[str, Any]:
    """What the certified policy keeps of fresh rows, and what policies certified on some fresh rows keep of others."""
    rows, _ = scored(candidate.collaborator, candidate.gate, draw.fresh, draw.num_labels)
    policy = candidate.deployed_on(draw.certify, draw.num_labels)
    choices, shares, num_certify = Choices(), [], len(draw.certify.labels)
    for seed in range(NUM_CERTIFIED):
        order = np.random.default_rng(seed).permutation(len(rows))
        certify, rest = rows.select(order[:num_certify]), rows.select(order[num_certify:])
        other, _ = certify_policy(
            candidate.outcomes, certify, candidate.found.policy, CERTIFICATE, delta=FIRST_LOOK, choices=choices
        )
        shares.append(float(other.keep(rest.score).mean()))
    return {
        "deployed": f"{candidate.name}, {candidate.gate.name}",
        "reached": float(policy.keep(rows.score).mean()),
        "expected": float(np.mean(shares)),
    }


def summary(runs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A line for every table, and one for all: errors in points with their standard errors, and what is covered."""
    draws = pd.json_normalize(list(runs)).assign(all="all")
    lines = []
    for by in ("table", "all"):
        for name, own in draws.groupby(by, sort=False):
            figures: dict[str, Any] = {"table": name, "runs": len(own)}
            for of in ("reached", "expected"):
                error = 100 * (own["forecast"] - own[of])
                figures[f"forecast minus {of}"] = [round(float(error.mean()), 1), round(float(error.sem()), 1)]
            inside = own["reached"].between(own["forecast_low"], own["forecast_high"])
            width = own["forecast_high"] - own["forecast_low"]
            figures |= {"covered": int(inside.sum()), "width": round(100 * float(width.mean()), 1)}
            figures["reached"] = round(100 * float(own["reached"].mean()), 1)
            lines.append(figures | {"cpu_s": round(float(own["cpu_s"].mean()), 1)})
    return lines


if __name__ == "__main__":
    main()
