"""Somebody's first table at defaults: KCM against its controls, all with the same inputs, gates and certificate.

    python benchmarks/first_table.py --clinc data_full.json --banking FOLDER [--only clinc] [--out FILE]

Eight tables of benchmarks/first_table_rows.py, with all labels; texts by MiniLM's vectors. Of the rows given, 65%
train, 25% certify, 10% are not used; up to 2,000 others are fresh, and judge all sides. A simulated large model is
right on 96%. Every side is a collaborator of `kcm run` in this process, with its strength tuned on train rows: KCM
with `basis: auto` and MCM (random ReLU) by generalised cross-validation, logistic regression by five folds. The better
of the gates of `kcm init` is taken by left-out train rows. All promise epsilon .02 at the delta of a first look.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression

from benchmarks.first_table_rows import READERS, Places, Table
from benchmarks.machine import machine
from benchmarks.script import options
from benchmarks.study.rows import NETWORK, TRAIN, batch, learned, task_of
from kcm.cascade.gate import Gate, fit_gate
from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes, Split
from kcm.cascade.policy import Policy
from kcm.cascade.reference import Reference
from kcm.cascade.search import SearchResult, find_policy
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.certification.forecast import CertificateForecast, forecast_certificate
from kcm.certification.ledger import question_delta
from kcm.collaborator.collaborator import Collaborator, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Batch
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.logistic import Logistic
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units
from pipelines.training.fitting import MAX_ROWS

SHARES = {"train": 0.65, "certify": 0.25}
LARGE_RIGHT, NUM_FRESH = 0.96, 2_000
CELLS = {  # rows given; at least 300 others are fresh
    "clinc": (1000, 2000),
    "banking": (1000, 2000),
    "reviews": (1000, 2000, 5000),
    "words": (1000, 2000, 5000),
    "segments": (1000, 2000),
    "mnist": (1000, 2000),
    "emoji": (1000, 1500),
    "fashion": (1000, 2000, 5000),
}
FEW_LABELS = ((200, 8_000), (200, 500), (1_000, 8_000), (1_000, 500))  # with a label, of 3,250; the large model's rows
CERTIFICATE = CertificateConfig(epsilon=0.02, delta=0.1)
FIRST_LOOK = question_delta(CERTIFICATE.delta, 1)
GATES = ("confidence", "signals")
SIDES: Mapping[str, NetworkKind] = {"kcm": "kan", "mcm": "random_relu", "linear": "linear"}


@dataclass(frozen=True)
class Rows:
    """Features [N, D], labels [N], the large model's answers [N], and the texts [N] of a language table."""

    features: np.ndarray
    labels: np.ndarray
    large: np.ndarray
    texts: np.ndarray | None = None

    def at(self, index: np.ndarray) -> Rows:
        texts = None if self.texts is None else self.texts[index]
        return Rows(self.features[index], self.labels[index], self.large[index], texts)


@dataclass(frozen=True)
class Draw:
    """The rows of one cell and seed."""

    train: Rows
    certify: Rows
    fresh: Rows
    num_labels: int


def main() -> None:
    parser = options(__doc__, True, data=("clinc", "banking"), features="storage/features", only=CELLS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", help="rows given, instead of those of each table")
    parser.add_argument("--out", type=Path, help="written cell by cell, and gone on with")
    given = parser.parse_args()
    os.environ["KCM_ASSETS"] = str(given.assets.resolve())
    places = Places(given.assets, given.clinc, given.banking, given.features)
    found = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    if found.get("sides") != list(SIDES):  # figures of other settings
        found = {"sides": list(SIDES), "draws": [], "few_labels": []}

    def keep(figures: Mapping[str, Any]) -> None:
        if given.out:
            given.out.write_text(json.dumps(figures, indent=1) + "\n")

    for name in given.only:
        table = READERS[name](places)
        sizes = given.rows or CELLS[name]
        for num_rows, seed in product(sizes, range(given.seeds)):
            about = {"table": name, "rows": num_rows, "seed": seed}
            if not any(about.items() <= draw.items() for draw in found["draws"]):
                draw = drawn(table, num_rows, seed)
                found["draws"].append(about | {name: measured(kind, draw) for name, kind in SIDES.items()})
                print(json.dumps(found["draws"][-1]), flush=True)
                keep(found)
        if name == "clinc" and not found["few_labels"]:
            cells = product(range(given.seeds), FEW_LABELS)
            found["few_labels"] = [few_labels(table, *cell, seed) for seed, cell in cells]
        found |= {"machine": machine(), "seeds": given.seeds, "fresh": NUM_FRESH, "cells": summary(found["draws"])}
        keep(found)
    for line in (*found["cells"], *found["few_labels"]):
        print(line)


def drawn(table: Table, num_rows: int, seed: int, shares: Mapping[str, float] = SHARES) -> Draw:
    """Rows, splits and the large model's mistakes by the seed."""
    random = np.random.default_rng([num_rows, seed])
    used = random.permutation(len(table.labels))[: num_rows + NUM_FRESH]
    num_labels, labels = int(table.labels.max()) + 1, table.labels[used]
    wrong = (labels + random.integers(1, num_labels, len(used))) % num_labels
    large = np.where(random.random(len(used)) < LARGE_RIGHT, labels, wrong)
    return split(
        Rows(table.features[used], labels, large, None if table.texts is None else table.texts[used]),
        num_rows,
        num_labels,
        random,
        shares,
    )


def split(
    rows: Rows,
    num_rows: int,
    num_labels: int,
    random: np.random.Generator,
    shares: Mapping[str, float] = SHARES,
) -> Draw:
    """The first rows train and certify, those behind them are fresh. A label without a train row gets its first row."""
    place = random.random(num_rows)
    labels, first_rows = np.unique(rows.labels[:num_rows], return_index=True)
    place[first_rows[~np.isin(labels, rows.labels[:num_rows][place < shares["train"]])]] = 0
    return Draw(
        train=rows.at(np.flatnonzero(place < shares["train"])),
        certify=rows.at(np.flatnonzero((place >= shares["train"]) & (place < sum(shares.values())))),
        fresh=rows.at(np.arange(num_rows, len(rows.labels))),
        num_labels=num_labels,
    )


def few_labels(table: Table, labelled: int, num_large: int, seed: int) -> dict[str, Any]:
    """Accuracy on fresh rows if the large model's answers replace the labels of all other train rows.

    The large model is a regression on `num_large` other rows.
    """
    random, num_labels = np.random.default_rng([5000, seed]), int(table.labels.max()) + 1
    order = random.permutation(len(table.labels))
    given, taught = order[: 5000 + NUM_FRESH], order[5000 + NUM_FRESH :][:num_large]
    large = LogisticRegression(C=10, max_iter=1000).fit(table.features[taught], table.labels[taught])
    rows = Rows(table.features[given], table.labels[given], large.predict(table.features[given]))
    draw = split(rows, 5000, num_labels, random)
    train, fresh = draw.train, draw.fresh
    known = np.arange(len(train.labels)) < labelled
    hidden = replace(batch_of(train), labels=torch.from_numpy(np.where(known, train.labels, UNLABELLED)))
    task = task_of("table", hidden)
    found = {"ours": small_answers([task], draw.num_labels, fresh.features), "large": fresh.large}
    for name, used in {"labels_alone": known, "labels_and_answers": np.full(len(known), True)}.items():
        joint = LogisticRegression(C=10, max_iter=1000)
        joint.fit(train.features[used], np.where(known, train.labels, train.large)[used])
        found[name] = joint.predict(fresh.features)
    right = {name: float((answers == fresh.labels).mean()) for name, answers in found.items()}
    return {"labelled": labelled, "taught": num_large, "seed": seed} | right


def small_answers(tasks: list[TensorRows], num_labels: int, features: np.ndarray) -> np.ndarray:
    """What the small side answers to rows when it has learned tasks as a run does by default."""
    collaborator, _ = learned("kan", tasks, features.shape[1], num_labels, seed=0)
    with torch.no_grad():
        return np.asarray(collaborator(torch.from_numpy(features))[0].numpy().argmax(1))


def measured(kind: NetworkKind, draw: Draw) -> dict[str, Any]:
    """What a collaborator with its best gate reaches on fresh rows when certified, and the CPU seconds of all."""
    started = time.process_time()
    best = max(candidates(kind, draw), key=lambda candidate: candidate.standing)
    policy = best.deployed_on(draw.certify, draw.num_labels)
    fresh, answers_N = scored(best.collaborator, best.gate, draw.fresh, draw.num_labels)
    figures = reached(policy.keep(fresh.score, fresh.task), answers_N, draw)
    deployed = {"form": best.collaborator.form, "gate": best.gate.name, "cpu_s": time.process_time() - started}
    return figures | deployed


def reached(kept_N: NDArray[np.bool_], small_N: NDArray[np.intp], draw: Draw) -> dict[str, Any]:
    """Calls saved, and points lost, on fresh rows."""
    small_right, large_right = small_N == draw.fresh.labels, draw.fresh.large == draw.fresh.labels
    lost = float((large_right[kept_N].sum() - small_right[kept_N].sum()) / len(kept_N))
    return {"saved": float(kept_N.mean()), "lost": lost, "broken": lost > CERTIFICATE.epsilon}


@dataclass(frozen=True)
class Candidate:
    """A collaborator with a gate, its train rows as if left out, the searched policy, and the forecast."""

    collaborator: Collaborator
    gate: Gate
    outcomes: ScoredOutcomes
    found: SearchResult
    forecast: CertificateForecast

    @property
    def standing(self) -> tuple[float, float, float]:
        """What it is chosen by."""
        return self.forecast.keep_rate, self.found.calls_saved, self.found.area

    def deployed_on(self, rows: Rows, num_labels: int) -> Policy:
        """The policy that `rows` certify."""
        certify, _ = scored(self.collaborator, self.gate, rows, num_labels)
        policy, _ = certify_policy(self.outcomes, certify, self.found.policy, CERTIFICATE, delta=FIRST_LOOK)
        return policy


def candidates(kind: NetworkKind, draw: Draw) -> Iterator[Candidate]:
    """A collaborator with each gate of `kcm init`."""
    train = batch_of(draw.train)
    collaborator = Collaborator(train.features.shape[1], draw.num_labels, NETWORK, kind, seed=0)
    learner = Logistic() if kind == "linear" else AnalyticConfig().build(0)
    trainer = trainer_of(collaborator, learner, [task_of("table", train)], TRAIN, DistillConfig(), seed=0)
    trainer.run()
    rows = draw.train.at(np.arange(min(MAX_ROWS, len(train))))
    units = Units(None, len(rows.labels))
    judge, small = trainer.learner.left_out(collaborator, batch_of(rows), units, DistillConfig())
    chosen = table(rows, judge.numpy(), small.numpy(), draw.num_labels, "validate")
    temperature = fit_temperature(chosen.judge_logits, chosen.label)
    for gate in GATES:
        fitted = fit_gate(gate, temperature, chosen, rows.features, reference=Reference.nothing())
        outcomes = ScoredOutcomes.of(chosen, fitted.scores)
        search = partial(find_policy, gate=fitted.gate, scope="global", max_loss=CERTIFICATE.epsilon)
        forecast = forecast_certificate(search, outcomes, len(draw.certify.labels), CERTIFICATE, FIRST_LOOK)
        yield Candidate(collaborator, fitted.gate, outcomes, search(outcomes), forecast)


@torch.no_grad()
def scored(collaborator: Collaborator, gate: Gate, rows: Rows, num_labels: int) -> tuple[ScoredOutcomes, np.ndarray]:
    """Rows with their gate scores, and the small side's answers."""
    judge, small = collaborator(torch.from_numpy(rows.features))
    found = table(rows, judge.numpy(), small.numpy(), num_labels, "certify")
    return ScoredOutcomes.of(found, gate.score(rows.features, judge, small)), found.small_label


def table(rows: Rows, judge: np.ndarray, small: np.ndarray, num_labels: int, split: Split) -> OutcomeTable:
    count = len(rows.labels)
    return OutcomeTable(
        id=np.array(ids(rows), dtype=object),
        task=np.full(count, "table", dtype=object),
        split=np.full(count, split, dtype=object),
        label=rows.labels,
        judge_logits=judge,
        small_logits=small,
        large_label=rows.large,
        large_probabilities=np.full((count, num_labels), np.nan),
        large_cost=np.zeros(count),
        large_error=np.zeros(count, dtype=bool),
        group=np.full(count, None),
        label_names=tuple(map(str, range(num_labels))),
    )


def ids(rows: Rows) -> list[str]:
    return [str(row) for row in range(len(rows.labels))]


def batch_of(rows: Rows) -> Batch:
    """The large model's answers are labels, as recorded ones are."""
    large = torch.eye(int(max(rows.large.max(), rows.labels.max())) + 1)[torch.from_numpy(rows.large)]
    return batch(rows.features, rows.labels, large.numpy())


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for every cell, for each table, and for all of them."""
    draws = pd.json_normalize(found).assign(all="all")
    draws["cell"] = [f"{draw['table']}, {draw['rows']} rows" for draw in found]
    return [line(name, own) for by in ("cell", "table", "all") for name, own in draws.groupby(by, sort=False)]


def line(name: str, draws: pd.DataFrame) -> dict[str, Any]:
    """Means over draws in points, and what KCM saves more than each control, paired, with its standard error."""
    figures: dict[str, Any] = {"cell": name, "draws": len(draws)}
    for side in SIDES:
        saved, seconds = (float(draws[f"{side}.{key}"].mean()) for key in ("saved", "cpu_s"))
        broken = int(draws[f"{side}.broken"].sum())
        figures[side] = {"saved": round(100 * saved, 1), "broken": broken, "cpu_s": round(seconds, 2)}
        if side != "kcm":
            gap = 100 * (draws["kcm.saved"] - draws[f"{side}.saved"])
            figures[side]["kcm_minus"] = [round(float(gap.mean()), 1), round(float(gap.sem()), 1)]
    return figures


if __name__ == "__main__":
    main()
