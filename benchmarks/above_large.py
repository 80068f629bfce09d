"""A cascade above its large model: recorded answers of an LLM, and 500 to 2,000 gold labels to train on.

    python benchmarks/above_large.py --data FOLDER [--only banking77] [--write]

The tables are those of benchmarks/label_tables.py with answers of GPT-4 and GPT-4o. Each of ten splits draws 1,000 rows
to certify and, from the others, the rows to train on, the smaller set within the larger; the rest test.
Every cell is two runs of `kcm run` up to the stage `evaluate`, in storages of their own: rows with MiniLM's vectors and
their split in a column, `large: recorded`, `collaborators: [kcm]`, `certificate.epsilon: 0`, `tune.goal` calls or
accuracy, and defaults. Threshold and gate are chosen by train rows left out. The settings were tried on splits 100 and
101, and frozen.

Beside it stands what a sceptic writes in thirty lines: logistic regression on the same vectors, its largest probability
as score, and the threshold that is cheapest, or most accurate, on the train rows by five folds. It certifies nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold

from benchmarks.label_tables import recorded
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.rows import text_vectors
from benchmarks.study.seeds import mean_and_ends
from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Goal
from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.run import run

TABLES = ("banking77", "ecommerce")
SIZES, NUM_CERTIFY, NUM_SPLITS = (500, 1000, 2000), 1000, 10
GOALS: tuple[Goal, ...] = get_args(Goal)
SIDES = ("large", "small", *GOALS, *(f"sceptic {goal}" for goal in GOALS))


@dataclass(frozen=True)
class Rows:
    """Vectors [N, D] at unit length, gold labels [N], and the large model's answers [N]; all names."""

    vectors: np.ndarray
    gold: np.ndarray
    large: np.ndarray
    num_certify: int

    def split(self, seed: int, size: int) -> np.ndarray:
        """The split of every row, [N]: "" for rows that this size leaves out."""
        order = np.random.default_rng(seed).permutation(len(self.gold))
        split_N = np.full(len(order), "test", dtype=object)
        split_N[order[: self.num_certify]] = "certify"
        split_N[order[self.num_certify : self.num_certify + size]] = "train"
        return split_N


def main() -> None:
    arguments = parsed()
    for name in arguments.only:
        rows = read_rows(name, arguments)
        cells = []
        for seed in range(arguments.splits):
            for size in arguments.sizes:
                cell = finished(arguments.storage / f"{name}-{size}-{seed}.json", rows, seed, size)
                cells.append(cell)
                print(name, json.dumps(cell), flush=True)
        figures = summary(cells, arguments.certify)
        for line in figures:
            print(json.dumps(line))
        if arguments.write:
            keep("above_large", {name: {"machine": machine(), "splits": arguments.splits, "cells": figures}})


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = options(__doc__, True, "storage/above_large", "above_large", data=("data",), only=TABLES)
    parser.add_argument("--splits", type=int, default=NUM_SPLITS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of train rows")
    parser.add_argument("--certify", type=int, default=NUM_CERTIFY, help="number of certify rows")
    return parser.parse_args()


def read_rows(name: str, arguments: argparse.Namespace) -> Rows:
    """The rows of a table, each text once, by MiniLM."""
    table = recorded(arguments.data, name)
    frame = table.frame.drop_duplicates("text")
    vectors = text_vectors(frame["text"].tolist(), arguments.assets, arguments.storage)
    return Rows(
        vectors, frame["gold"].to_numpy(dtype=object), frame[table.oracle].to_numpy(dtype=object), arguments.certify
    )


def finished(file: Path, rows: Rows, seed: int, size: int) -> dict[str, Any]:
    """The figures of one cell, from the disk if they exist."""
    if not file.exists():
        file.write_text(json.dumps(measured(rows, seed, size)), encoding="utf-8")
    return dict(json.loads(file.read_text(encoding="utf-8")))


def measured(rows: Rows, seed: int, size: int) -> dict[str, Any]:
    """Accuracy and calls of every side on the test rows of one split."""
    started = time.process_time()
    split_N = rows.split(seed, size)
    cell: dict[str, Any] = {"size": size, "seed": seed, "test_rows": int((split_N == "test").sum())}
    cell |= cascades(rows, split_N) | sceptic(rows, split_N)
    return cell | {"cpu_s": time.process_time() - started}


def cascades(rows: Rows, split_N: np.ndarray) -> dict[str, Any]:
    """The deployed cascade by either goal, of runs that share their training and have a ledger each."""
    cell: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.parquet"
        write_rows(rows, split_N, file)
        first, by_accuracy = (configured(file, Path(folder) / goal, goal) for goal in GOALS)
        run(first, until="train")
        shutil.copytree(first.storage_path, by_accuracy.storage_path)
        for config in (first, by_accuracy):
            result = run(config, until="evaluate")
            deployed = result["deployed"]["collaborator"]
            overall, certificate = result[deployed]["overall"], result[deployed]["certificate"]
            cell["large"] = {"right": overall["large_accuracy"], "calls": 1.0}
            cell.setdefault("small", {"right": overall["small_accuracy"], "calls": 0.0})
            cell[config.tune.goal] = {
                "right": overall["cascade_accuracy"],
                "calls": overall["call_rate"],
                "certified": certificate["decision"] != "escalate_all",
                "method": certificate["method"],
                "deployed": f"{deployed}, {result[deployed]['policy']['gate']}",
            }
    return cell


def write_rows(rows: Rows, split_N: np.ndarray, file: Path) -> None:
    """Rows and answers in one file; an answer off the label list is a failed one, as the certificate counts it."""
    known_N = np.isin(rows.large, rows.gold)
    table = {
        "id": [str(row) for row in range(len(split_N))],
        "vector": list(rows.vectors),
        "label": rows.gold,
        "large": np.where(known_N, rows.large, ""),
        "split": split_N,
    }
    pd.DataFrame(table).to_parquet(file)


def configured(file: Path, storage: Path, goal: Goal) -> RunConfig:
    """`kcm run` on this file."""
    columns = {"text_column": None, "id_column": "id", "label_column": "label", "split_column": "split"}
    values = {
        "name": "above",
        "storage_path": storage,
        "collaborators": ["kcm"],
        "tasks": {
            "source": {"kind": "files", "path": str(file), **columns},
            "scenario": "class_incremental",
            "num_tasks": 1,
            "fractions": {"train": 0.5, "validate": 0.0, "certify": 0.3, "test": 0.2},
        },
        "encoder": {"kind": "precomputed", "column": "vector"},
        "large": {"adapter": "recorded", "path": str(file), "id_column": "id", "label_column": "large"},
        "tune": {"goal": goal},
        "certificate": {"epsilon": 0.0},
    }
    return parse_config(RunConfig, values, where="above_large")


def sceptic(rows: Rows, split_N: np.ndarray) -> dict[str, Any]:
    """Logistic regression with a threshold of its own, on the train rows alone."""
    train, test = (np.flatnonzero(split_N == split) for split in ("train", "test"))
    answer_N, score_N = np.empty(len(train), dtype=object), np.empty(len(train))
    for fit_rows, held_out in KFold(5, shuffle=True, random_state=0).split(train):
        answer_N[held_out], score_N[held_out] = answered(rows, train[fit_rows], train[held_out])
    frontier = Frontier.of(outcomes(rows, train, answer_N, score_N))
    answer_M, score_M = answered(rows, train, test)
    measured_rows = Frontier.of(outcomes(rows, test, answer_M, score_M))
    points = {"calls": frontier.cheapest(0.0), "accuracy": frontier.most_accurate()}
    figures = {goal: measured_rows.at(point.threshold) for goal, point in points.items()}
    return {f"sceptic {goal}": {"right": point.accuracy, "calls": point.call_rate} for goal, point in figures.items()}


def answered(rows: Rows, train: np.ndarray, held_out: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Answers and largest probabilities for other rows."""
    model = LogisticRegression(C=10, max_iter=1000).fit(rows.vectors[train], rows.gold[train].astype(str))
    probability = model.predict_proba(rows.vectors[held_out])
    return model.classes_[probability.argmax(1)].astype(object), probability.max(1)


def outcomes(rows: Rows, index: np.ndarray, answer_N: np.ndarray, score_N: np.ndarray) -> ScoredOutcomes:
    """Who is right on some rows."""
    gold_N = rows.gold[index]
    return ScoredOutcomes(score=score_N, small_correct=answer_N == gold_N, large_correct=rows.large[index] == gold_N)


def summary(cells: Sequence[Mapping[str, Any]], num_certify: int) -> list[dict[str, Any]]:
    """By size, for every side: accuracy, calls, gain over the large model, and number of certificates.

    `worse` counts certified splits that are less accurate than the large model on their test rows.
    """
    sizes = []
    for size in dict.fromkeys(cell["size"] for cell in cells):
        splits = [cell for cell in cells if cell["size"] == size]
        share = splits[0]["test_rows"] / (size + num_certify)  # over the rows that decide anything
        figures: dict[str, Any] = {"train_rows": size, "test_rows": splits[0]["test_rows"]}
        for side in SIDES:
            accuracies, calls = (np.array([cell[side][key] for cell in splits]) for key in ("right", "calls"))
            gain = accuracies - [cell["large"]["right"] for cell in splits]
            columns = {"right": accuracies, "calls": calls, "gain": gain}
            figures[side] = {name: mean_and_ends(values, share) for name, values in columns.items()}
            if side in GOALS:
                is_certified = np.array([cell[side]["certified"] for cell in splits])
                figures[side] |= {"certified": int(is_certified.sum()), "worse": int((gain[is_certified] < 0).sum())}
        our_calls, sceptics = (
            np.array([cell[side]["right"] for cell in splits]) for side in ("accuracy", "sceptic accuracy")
        )
        figures["over_sceptic"] = mean_and_ends(our_calls - sceptics, share)
        sizes.append(figures | {"cpu_s": float(np.mean([cell["cpu_s"] for cell in splits]))})
    return sizes


if __name__ == "__main__":
    main()
