"""The tables with a given score, for kcm and for its rivals alike; numpy alone, so that any environment can read them.

Sources: {reviews, court_opinion}.csv are in github.com/ucbepic/BARGAIN, commit c39da107, below
examples/pre_computed_eval/data; {onto, tacred, imagenet} are data/NAME/source.csv in
github.com/stanford-futuredata/supg, commit cff4e7eb.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

SCORED = {
    "reviews": "bargain/reviews.csv",
    "court_opinion": "bargain/court_opinion.csv",
    "onto": "supg/onto.csv",
    "tacred": "supg/tacred.csv",
    "imagenet": "supg/imagenet.csv.gz",
}


class Scored(NamedTuple):
    """The oracle's labels [N] (0 or 1) and the proxy's probabilities of 1 [N]."""

    labels: np.ndarray
    scores: np.ndarray


def scored(folder: Path, name: str) -> Scored:
    """A table with a given score."""
    file = folder / SCORED[name]
    opener = gzip.open if file.suffix == ".gz" else open
    with opener(file, "rt", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    labels = np.array([row["label"] in ("True", "1", "1.0") for row in rows], dtype=int)
    return Scored(labels, np.array([float(row["proxy_score"]) for row in rows]))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of every runner of a rival."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data"), help="folder with bargain/ and supg/")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--only", nargs="*", help="tables; all by default")
    parser.add_argument("--json", type=Path, help="write the figures to this file as well")
    return parser


def selection(labels: np.ndarray, positions: np.ndarray, bought: int) -> dict[str, float]:
    """Precision, recall and size of a returned set of rows, and the number of labels that it cost."""
    num_positive = int(labels[positions].sum())
    return {
        "precision": num_positive / len(positions) if len(positions) else 1.0,
        "recall": num_positive / int(labels.sum()),
        "returned": len(positions),
        "bought": bought,
    }


def summary(runs: list[dict[str, float]], promise: str, target: float) -> dict[str, Any]:
    """Means over seeds, and the number of runs that missed the promise."""
    means = {key: round(float(np.mean([run[key] for run in runs])), 4) for key in runs[0]}
    return means | {"broken": sum(run[promise] < target for run in runs), "seeds": len(runs)}


def report(rows: Iterable[dict[str, Any]], file: Path | None) -> None:
    """Print each row of figures as it comes, as a line of JSON; write them all to a file."""
    runs = []
    for row in rows:
        print(json.dumps(row), flush=True)
        runs.append(row)
    if file is not None:
        file.write_text(json.dumps(runs, indent=1) + "\n", encoding="utf-8")
