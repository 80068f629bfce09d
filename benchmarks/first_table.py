"""Somebody's first table at defaults, against thirty lines of scikit-learn: the same rows, answers and certificate.

    python benchmarks/first_table.py --clinc data_full.json [--seeds 5] [--out benchmarks/results/first_table.json]

Questions of CLINC150 with 10, 30 or 150 intents, MiniLM features. Of the rows given, 65% train, 25% certify, 10% are
not used; all other rows are fresh, and judge both sides. The large model is a linear head on the same features that was
fitted to 8,000 rows which neither side sees. Ours: the collaborators `auto` trains (KAN, random ReLU, logistic
regression) with the gates of `kcm init`, chosen by train rows left out, before the certify rows are read. Theirs:
`LogisticRegression(C=10)`, its largest probability as score, the lowest threshold that an exact binomial test passes.
Both promise epsilon .02 at the delta of a first look. The settings below were frozen before the first run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import machine
from scipy.stats import binom
from sklearn.linear_model import LogisticRegression

from kcm.cascade.gate import Gate, fit_gate
from kcm.cascade.reference import Reference
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.cascade.table import OutcomeTable, Split
from kcm.certify.certificate import CertificateConfig, certified_keep_rate, certify_policy
from kcm.certify.ledger import look_delta
from kcm.collaborator.collaborator import Collaborator, CollaboratorName, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.config import parse_config
from kcm.encoders import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.learners import AnalyticConfig, Batch, Learner
from kcm.learners.logistic import Logistic
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import Trainer
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units
from pipelines.config import DEFAULT_LEARNING

CELLS = ((10, 300), (10, 1000), (30, 300), (30, 1000), (30, 2000), (150, 1000), (150, 2000), (150, 5000))
SHARES = {"train": 0.65, "certify": 0.25}
NUM_LARGE, NUM_FRESH = 8_000, 4_000
CERTIFICATE = CertificateConfig(epsilon=0.02, delta=0.1)
GATES = ("confidence", "signals")
KINDS: Mapping[CollaboratorName, NetworkKind] = {"kcm": "kan", "mcm": "random_relu", "linear": "linear"}


@dataclass(frozen=True)
class Rows:
    """Features [N, D] at unit length, labels [N], and the large model's answers [N]."""

    features: np.ndarray
    labels: np.ndarray
    large: np.ndarray

    def at(self, index: np.ndarray) -> Rows:
        return Rows(self.features[index], self.labels[index], self.large[index])


@dataclass(frozen=True)
class Draw:
    """The rows of one cell and seed."""

    train: Rows
    certify: Rows
    fresh: Rows
    num_labels: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clinc", type=Path, required=True, help="data_full.json of CLINC150")
    parser.add_argument("--assets", type=Path, default=Path("assets"))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--features", type=Path, help="a .npy file that the features are kept in")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    texts, labels = clinc(given.clinc)
    features = embedded(texts, given.assets, given.features)
    found = []
    for num_labels, num_rows in CELLS:
        for seed in range(given.seeds):
            draw = drawn(features, labels, num_labels, num_rows, seed)
            both = {"ours": measured(ours, draw), "theirs": measured(thirty_lines, draw)}
            found.append({"intents": num_labels, "rows": num_rows, "seed": seed} | both)
            print(json.dumps(found[-1]), flush=True)
    cells = summary(found)
    for line in cells:
        print(line)
    if given.out:
        result = {"machine": machine(), "seeds": given.seeds, "cells": cells, "draws": found}
        given.out.write_text(json.dumps(result, indent=1) + "\n")


def clinc(path: Path) -> tuple[list[str], np.ndarray]:
    """The texts within scope, and their intents as numbers."""
    data = json.loads(path.read_text(encoding="utf-8"))
    rows = [row for split in ("train", "val", "test") for row in data[split]]
    names = sorted({intent for _, intent in rows})
    return [text for text, _ in rows], np.array([names.index(intent) for _, intent in rows])


def embedded(texts: list[str], assets: Path, kept: Path | None) -> np.ndarray:
    """MiniLM's features at unit length, [N, D]."""
    if kept is not None and kept.exists():
        features = np.load(kept)
    else:
        encoder = TextEncoderConfig(model="sentence-transformers/all-MiniLM-L6-v2").build(assets)
        parts = [
            encoder.encode([Content(text=text) for text in texts[at : at + 512]]) for at in range(0, len(texts), 512)
        ]
        features = np.concatenate(parts)
        if kept is not None:
            np.save(kept, features)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)


def drawn(features: np.ndarray, labels: np.ndarray, num_labels: int, num_rows: int, seed: int) -> Draw:
    """Intents and rows by the seed; the large model learns from rows that are not given."""
    random = np.random.default_rng([num_labels, num_rows, seed])
    chosen = np.sort(random.permutation(labels.max() + 1)[:num_labels])
    pool = random.permutation(np.flatnonzero(np.isin(labels, chosen)))
    given, rest = pool[:num_rows], pool[num_rows:]
    taught, fresh = np.split(rest, [min(NUM_LARGE, len(rest) // 2)])
    target = np.searchsorted(chosen, labels)
    head = LogisticRegression(C=10, max_iter=1000).fit(features[taught], target[taught])
    used = np.concatenate([given, fresh[:NUM_FRESH]])
    rows = Rows(features[used], target[used], head.predict(features[used]))
    place = random.random(num_rows)
    return Draw(
        train=rows.at(np.flatnonzero(place < SHARES["train"])),
        certify=rows.at(np.flatnonzero((place >= SHARES["train"]) & (place < sum(SHARES.values())))),
        fresh=rows.at(np.arange(num_rows, len(used))),
        num_labels=num_labels,
    )


def measured(side: Any, draw: Draw) -> dict[str, Any]:
    """Calls saved, points lost and accuracy of the small side on fresh rows, and the CPU seconds that it all took."""
    started = time.process_time()
    kept_N, small_N, deployed = side(draw)
    seconds = time.process_time() - started
    fresh = draw.fresh
    small_right, large_right = small_N == fresh.labels, fresh.large == fresh.labels
    lost = float((large_right[kept_N].sum() - small_right[kept_N].sum()) / len(kept_N))
    return {
        "saved": float(kept_N.mean()),
        "lost": lost,
        "broken": lost > CERTIFICATE.epsilon,
        "right": float(small_right.mean()),
        "deployed": deployed,
        "cpu_s": seconds,
    }


def thirty_lines(draw: Draw) -> tuple[np.ndarray, np.ndarray, str]:
    """What the fresh rows get: whether they are kept, and the small side's answers."""
    model = LogisticRegression(C=10, max_iter=1000).fit(draw.train.features, draw.train.labels)
    certify, fresh = draw.certify, draw.fresh
    small, score = model.predict(certify.features), model.predict_proba(certify.features).max(1)
    lost = np.sort(score[(small != certify.labels) & (certify.large == certify.labels)])[::-1]
    passing = binom.cdf(np.arange(len(score)), len(score), CERTIFICATE.epsilon) <= look_delta(CERTIFICATE.delta, 1)
    affordable = int(passing.sum()) - 1
    threshold = np.inf if affordable < 0 else lost[affordable] if affordable < len(lost) else -np.inf
    kept = model.predict_proba(fresh.features).max(1) > threshold
    return kept, model.predict(fresh.features), "linear"


def ours(draw: Draw) -> tuple[np.ndarray, np.ndarray, str]:
    """The same by the collaborators, gates, search and certificate of the product."""
    delta = look_delta(CERTIFICATE.delta, 1)
    network = parse_config(NetworkConfig, DEFAULT_LEARNING["network"], where="network")
    best: tuple[tuple[float, ...], Any] | None = None
    for name, kind in KINDS.items():
        collaborator = Collaborator(draw.train.features.shape[1], draw.num_labels, network, kind, seed=0)
        learner: Learner = Logistic() if name == "linear" else AnalyticConfig().build(0)
        batch = batch_of(draw.train)
        task = TensorRows("table", {split: (ids(draw.train), batch) for split in ("train", "test")})
        distill = DistillConfig()
        Trainer(collaborator, learner, [task], TrainConfig(), distill, seed=0).run()
        judge, small = learner.left_out(collaborator, batch, Units(None, len(batch)), distill)
        chosen = table(draw.train, judge.numpy(), small.numpy(), draw.num_labels, "validate")
        temperature = fit_temperature(chosen.judge_logits, chosen.label)
        for gate in GATES:
            fitted = fit_gate(gate, temperature, chosen, draw.train.features, reference=Reference.nothing())
            rows = ScoredOutcomes.of(chosen, fitted.scores)
            found = find_policy(rows, fitted.gate, "global", CERTIFICATE.epsilon)
            promised = certified_keep_rate(found.policy, rows, CERTIFICATE, delta)
            standing = promised, found.calls_saved, found.area
            if best is None or standing > best[0]:
                best = standing, (name, collaborator, fitted.gate, rows, found.policy)
    assert best is not None
    name, collaborator, gate, rows, policy = best[1]
    certify, _ = scored(collaborator, gate, draw.certify, draw.num_labels)
    deployed, _ = certify_policy(rows, certify, policy, CERTIFICATE, delta=delta)
    fresh, answers = scored(collaborator, gate, draw.fresh, draw.num_labels)
    return deployed.keep(fresh.score, fresh.task), answers, f"{name}, {gate.name}"


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
        prompt=np.full(count, "none", dtype=object),
        label_names=tuple(map(str, range(num_labels))),
    )


def ids(rows: Rows) -> list[str]:
    return [str(row) for row in range(len(rows.labels))]


def batch_of(rows: Rows) -> Batch:
    """The large model's answers are labels, as recorded ones are."""
    large = torch.eye(int(max(rows.large.max(), rows.labels.max())) + 1)[torch.from_numpy(rows.large)]
    return Batch(torch.from_numpy(rows.features), torch.from_numpy(rows.labels), large, torch.ones(len(rows.labels)))


def summary(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A line for every cell, and one for all of them."""
    return [
        *(line(f"{intents} intents, {rows} rows", mine) for (intents, rows), mine in by_cell(found)),
        line("all", found),
    ]


def by_cell(found: list[dict[str, Any]]) -> Iterator[tuple[tuple[int, int], list[dict[str, Any]]]]:
    for cell in dict.fromkeys((each["intents"], each["rows"]) for each in found):
        yield cell, [each for each in found if (each["intents"], each["rows"]) == cell]


def line(name: str, draws: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over draws, and the paired differences with their standard errors, in points."""
    figures: dict[str, Any] = {"cell": name, "draws": len(draws)}
    for side in ("ours", "theirs"):
        figures[side] = {
            "saved": percent([each[side]["saved"] for each in draws]),
            "right": percent([each[side]["right"] for each in draws]),
            "cpu_s": round(float(np.mean([each[side]["cpu_s"] for each in draws])), 2),
            "broken": sum(each[side]["broken"] for each in draws),
        }
    for figure in ("saved", "right"):
        gap = 100 * np.array([each["ours"][figure] - each["theirs"][figure] for each in draws])
        error = gap.std(ddof=1) / np.sqrt(len(gap)) if len(gap) > 1 else float("nan")
        figures[f"{figure}_difference"] = [round(float(gap.mean()), 1), round(float(error), 1)]
    return figures


def percent(values: list[float]) -> float:
    return round(100 * float(np.mean(values)), 1)


if __name__ == "__main__":
    main()
