"""A user who runs `kcm run` 20 times on one table and takes any certificate: how many populations end with a false one.

    python benchmarks/certificates_run.py [--populations 20] [--looks 20] [--write]

A row is a vector of two numbers in [-1, 1]. The sign of the first one is the label, except that in the tenth of the
population with the surest answers 1.05 epsilon of all rows have the other label. So whoever keeps that tenth loses 1.05
epsilon, and no vector tells which rows it loses. The large model is always right. Every look is one `kcm run` in the
same storage with another seed, salt, split, column of answers, epsilon, name and file; some tables are a part of the
first one, some hold 200 rows more. A certificate is false if what it deploys is expected to lose more than its epsilon;
the expectation is over 20,000 vectors on a grid, so it has no noise. At most delta of the populations may have one.
`--write` puts the figures into benchmarks/results/certificates_run.json.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.pretty import pprint
from scipy.stats import binom, binomtest

import kcm
from benchmarks.machine import machine
from benchmarks.script import keep, options
from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.run import run
from pipelines.stages.register import BundleArtefact
from pipelines.store.artefact import ArtefactStore

DELTA, EPSILONS = 0.1, (0.018, 0.02)
RISKY, FLIPPED = 0.1, 0.21  # share of rows with the largest |x|; share of these with the other label
NUM_ROWS, NUM_MORE, NUM_GRID = 1200, 200, 20_000


def draw(rng: np.random.Generator, num_rows: int) -> pd.DataFrame:
    """Rows of the population."""
    vector_ND = rng.uniform(-1, 1, (num_rows, 2)).astype(np.float32)
    is_flipped_N = (np.abs(vector_ND[:, 0]) > 1 - RISKY) & (rng.random(num_rows) < FLIPPED)
    label_N = np.where((vector_ND[:, 0] > 0) ^ is_flipped_N, "yes", "no")
    columns = {"f_0": vector_ND[:, 0], "f_1": vector_ND[:, 1], "label": label_N}
    return pd.DataFrame(columns | {"large": label_N, "again": label_N})


def look(rows: pd.DataFrame, folder: Path, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """The configuration of one more look at the table; the first one is what `kcm init` writes, with one gate."""
    all_rows = rows.head(NUM_ROWS)
    kind = rng.integers(3) if number else 1
    table = (rows, all_rows, all_rows.sample(frac=0.7, random_state=number))[kind]
    file = folder / f"table {number}.csv"
    table.to_csv(file, index=False)
    certify = float(rng.choice([0.25, 0.35]))
    source = {"kind": "files", "path": str(file), "text_column": None, "label_column": "label"}
    answers = {"path": str(file), "id_column": None, "label_column": str(rng.choice(["large", "again"]))}
    return {
        "name": f"run-{number}",
        "seed": int(rng.integers(1000)),
        "storage_path": str(folder / "storage"),
        "tasks": {
            "source": source,
            "scenario": "class_incremental",
            "num_tasks": 1,
            "salt": int(rng.integers(3)),
            "fractions": {"train": 0.9 - certify, "validate": 0, "certify": certify, "test": 0.1},
        },
        "encoder": {"kind": "precomputed", "columns": ["f_0", "f_1"]},
        "large": {"adapter": "recorded"} | answers,
        "collaborators": ["kcm"],
        "tune": {"gates": ["confidence"]},
        "certificate": {"epsilon": float(rng.choice(EPSILONS)), "delta": DELTA},
        "cluster": {"num_workers": 1, "num_encoders": 1, "num_trials": 1},
    }


def is_false(values: Mapping[str, Any]) -> bool:
    """Whether `kcm run` certifies, by these values, what is expected to lose too much."""
    config = parse_config(RunConfig, dict(values))
    certificate = run(config, until="evaluate")["kcm"]["certificate"]
    if certificate["decision"] == "escalate_all":
        return False
    run(config)
    last = max(
        ArtefactStore(config.storage_path).finished("register"), key=lambda artefact: artefact.folder.stat().st_mtime
    )
    grid_N = (np.arange(NUM_GRID) + 0.5) / NUM_GRID * 2 - 1
    vectors = [{"f_0": x, "f_1": y} for x, y in zip(grid_N, np.random.default_rng(0).permutation(grid_N), strict=True)]
    answers = kcm.load(last.as_a(BundleArtefact).bundle).predict(vectors)
    is_kept_N = np.array([answer.route == "small" for answer in answers])
    says_sign_N = np.array([answer.label == "yes" for answer in answers]) == (grid_N > 0)
    is_flipped_N = np.where(np.abs(grid_N) > 1 - RISKY, FLIPPED, 0.0)
    loss_N = np.where(says_sign_N, is_flipped_N, 1 - is_flipped_N)
    return float((is_kept_N * loss_N).mean()) > certificate["epsilon"]


def measured(num_populations: int, num_looks: int) -> dict[str, Any]:
    """How many populations ended with a false certificate, and the most that delta allows beyond noise (99%)."""
    counts = []
    for population in range(num_populations):
        rng = np.random.default_rng([2026, population])
        rows = draw(rng, NUM_ROWS + NUM_MORE)
        with tempfile.TemporaryDirectory() as folder:
            counts.append(sum(is_false(look(rows, Path(folder), number, rng)) for number in range(num_looks)))
        print(f"population {population}: {counts[-1]} false of {num_looks}", flush=True)
    count = sum(map(bool, counts))
    share = binomtest(count, num_populations).proportion_ci()
    return {
        "false": count,
        "populations": num_populations,
        "looks": num_looks,
        "limit": int(binom.ppf(0.99, num_populations, DELTA)),
        "low": round(float(share.low), 4),
        "high": round(float(share.high), 4),
    }


def main() -> None:
    """Print the figures, and write them with `--write`."""
    parser = options(__doc__, results="certificates_run")
    parser.add_argument("--populations", type=int, default=20, help="populations, each with a table of its own")
    parser.add_argument("--looks", type=int, default=20, help="runs on each table")
    arguments = parser.parse_args()
    figures = {"machine": machine()} | measured(arguments.populations, arguments.looks)
    pprint(figures)
    if arguments.write:
        keep("certificates_run", figures)


if __name__ == "__main__":
    main()
