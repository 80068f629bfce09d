"""Somebody's first table at defaults, against scikit-learn: the same rows, answers and certificate.

    python benchmarks/first_table.py --clinc data_full.json --banking FOLDER [--only clinc] [--out FILE]

Eight tables of benchmarks/first_table_rows.py, with all labels. Of the rows given, 65% train, 25% certify, 10% are not
used; up to 2,000 others are fresh, and judge all sides. A simulated large model is right on 96%.

Ours: texts go through `kcm init`, `kcm run` and `kcm predict`. Ready vectors go through the collaborators and gates of
a run in this process; the first draw of two cells of each table goes through the command as well.
Theirs: `LogisticRegression(C=10)` on the same features, its largest probability as score, and the lowest threshold that
an exact binomial test passes. On texts, also the regression on words (TF-IDF), and the average of both regressions.
All promise epsilon .02 at the delta of a first look. The settings were frozen before the first run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from benchmarks.first_table_rows import READERS, Places, Table
from benchmarks.machine import machine
from benchmarks.script import options
from benchmarks.study.exact import exact_cut
from benchmarks.study.rows import batch, learned, task_of
from kcm.cascade.gate import Gate, fit_gate
from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes, Split
from kcm.cascade.policy import Policy
from kcm.cascade.reference import Reference
from kcm.cascade.search import SearchResult, find_policy
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.certification.forecast import CertificateForecast, forecast_certificate
from kcm.certification.ledger import question_delta
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners import Batch
from kcm.learners.training.stream import TensorRows
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
NUM_COMMANDED = 2  # cells of a table of vectors whose first draw goes through the command as well
FEW_LABELS = ((200, 8_000), (200, 500), (1_000, 8_000), (1_000, 500))  # with a label, of 3,250; the large model's rows
CERTIFICATE = CertificateConfig(epsilon=0.02, delta=0.1)
FIRST_LOOK = question_delta(CERTIFICATE.delta, 1)
GATES = ("confidence", "signals")
RIVALS = ("theirs", "words", "average")  # the regressions on features, on words, and the average of both
_KCM = str(Path(sys.executable).with_name("kcm"))


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


Side = Callable[[Draw], tuple[NDArray[np.bool_], NDArray[np.intp], str]]


def main() -> None:
    parser = options(__doc__, True, data=("clinc", "banking"), features="storage/features", only=CELLS)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, nargs="+", help="rows given, instead of those of each table")
    parser.add_argument("--out", type=Path, help="written cell by cell, and gone on with")
    given = parser.parse_args()
    os.environ["KCM_ASSETS"] = str(given.assets.resolve())
    places = Places(given.assets, given.clinc, given.banking, given.features)
    found = json.loads(given.out.read_text()) if given.out and given.out.exists() else {}
    if found.get("fresh") != NUM_FRESH:  # figures of other settings
        found = {"fresh": NUM_FRESH, "draws": [], "few_labels": []}

    def keep(figures: Mapping[str, Any]) -> None:
        if given.out:
            given.out.write_text(json.dumps(figures, indent=1) + "\n")

    for name in given.only:
        table = READERS[name](places)
        sizes = given.rows or CELLS[name]
        for num_rows, seed in product(sizes, range(given.seeds)):
            about = {"table": name, "rows": num_rows, "seed": seed}
            if not any(about.items() <= draw.items() for draw in found["draws"]):
                also = seed == 0 and num_rows in sizes[:NUM_COMMANDED]
                sides = compared(drawn(table, num_rows, seed), also=also)
                found["draws"].append(about | sides)
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


def compared(draw: Draw, *, also: bool) -> dict[str, Any]:
    """What every side reaches on fresh rows; `also` sends ready vectors through the command as well."""
    figures: dict[str, Any] = {"theirs": measured(thirty_lines, draw)}
    if draw.fresh.texts is not None:
        return figures | {"ours": commanded(draw)} | rivals_on_texts(draw)
    return figures | {"ours": measured(ours, draw)} | ({"command": commanded(draw)} if also else {})


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


def measured(side: Side, draw: Draw) -> dict[str, Any]:
    """What a side reaches on fresh rows, what it deploys, and the CPU seconds of all."""
    started = time.process_time()
    kept_N, small_N, deployed = side(draw)
    return reached(kept_N, small_N, draw) | {"deployed": deployed, "cpu_s": time.process_time() - started}


def reached(kept_N: NDArray[np.bool_], small_N: NDArray[np.intp], draw: Draw) -> dict[str, Any]:
    """Calls saved, and points lost, on fresh rows."""
    small_right, large_right = small_N == draw.fresh.labels, draw.fresh.large == draw.fresh.labels
    lost = float((large_right[kept_N].sum() - small_right[kept_N].sum()) / len(kept_N))
    return {"saved": float(kept_N.mean()), "lost": lost, "broken": lost > CERTIFICATE.epsilon}


def commanded(draw: Draw) -> dict[str, Any]:
    """`measured`, and the forecast, of `kcm init`, `kcm run` and `kcm predict` on the same rows and splits."""
    before = os.times()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = {"train": draw.train, "certify": draw.certify}
        table = pd.concat(frame(rows).assign(split=split) for split, rows in given.items())
        table.to_parquet(folder / "table.parquet")
        frame(draw.fresh).drop(columns=["label", "large"]).to_parquet(folder / "fresh.parquet")
        trusted = {"KCM_TRUSTED_PLACES": str(folder / "table.parquet")}
        predict = ("predict", "models:/table", "fresh.parquet", "-o", "answers.parquet", "--config", "table.yaml")
        for command in (
            ("init", "table.parquet", "--label", "label", "--large", "large"),
            ("run", "table.yaml", "--json", "run.json", "--promote"),
            predict,
        ):
            subprocess.run([_KCM, *command], cwd=folder, env=os.environ | trusted, check=True, capture_output=True)
        result = json.loads((folder / "run.json").read_text())
        answers = pd.read_parquet(folder / "answers.parquet")
    own, after = result[result["deployed"]["collaborator"]], os.times()
    label = answers["label"].fillna("label -1")  # of an escalated row, which nothing can answer
    small_N = label.str.removeprefix("label ").astype(int).to_numpy()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    deployed = f"{own['form']}, {own['policy']['gate']}"
    kept_N = (answers["route"] == "small").to_numpy()
    return own["forecast"] | reached(kept_N, small_N, draw) | {"deployed": deployed, "cpu_s": seconds}


def frame(rows: Rows) -> pd.DataFrame:
    """Rows as a user's table has them: text or features, the label, and the large model's answer."""
    if rows.texts is None:
        columns = [f"f{column}" for column in range(rows.features.shape[1])]
        table = pd.DataFrame(rows.features, columns=columns)
    else:
        table = pd.DataFrame({"text": rows.texts})
    return table.assign(
        label=[f"label {label}" for label in rows.labels], large=[f"label {label}" for label in rows.large]
    )


@dataclass(frozen=True)
class Regression:
    """A regression's probabilities of the classes [C], for certify and fresh rows."""

    classes: NDArray[np.intp]
    certify_NC: NDArray[np.float64]
    fresh_NC: NDArray[np.float64]


def regression(draw: Draw, train: Any, certify: Any, fresh: Any) -> Regression:
    """`LogisticRegression(C=10)` on the train rows, whose inputs stand in `train`."""
    model = LogisticRegression(C=10, max_iter=1000).fit(train, draw.train.labels)
    return Regression(model.classes_, model.predict_proba(certify), model.predict_proba(fresh))


def promised(draw: Draw, fitted: Regression) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """What the fresh rows get: whether they are kept, and the answers, under an exact binomial test."""
    small = fitted.classes[fitted.certify_NC.argmax(1)]
    rows = ScoredOutcomes(
        score=fitted.certify_NC.max(1),
        small_correct=small == draw.certify.labels,
        large_correct=draw.certify.large == draw.certify.labels,
    )
    threshold = exact_cut(rows, CERTIFICATE.epsilon, FIRST_LOOK)
    return fitted.fresh_NC.max(1) > threshold, fitted.classes[fitted.fresh_NC.argmax(1)]


def thirty_lines(draw: Draw) -> tuple[NDArray[np.bool_], NDArray[np.intp], str]:
    """The regression on the features."""
    fitted = regression(draw, draw.train.features, draw.certify.features, draw.fresh.features)
    return *promised(draw, fitted), "linear"


def rivals_on_texts(draw: Draw) -> dict[str, Any]:
    """The regression on words, and the average of the regressions on words and on the embedding."""
    parts = draw.train, draw.certify, draw.fresh
    counter = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True).fit(draw.train.texts)
    words = regression(draw, *(counter.transform(rows.texts) for rows in parts))
    embedding = regression(draw, *(rows.features for rows in parts))
    average = Regression(
        words.classes, (words.certify_NC + embedding.certify_NC) / 2, (words.fresh_NC + embedding.fresh_NC) / 2
    )
    fits = {"words": words, "average": average}
    return {name: reached(*promised(draw, fitted), draw) for name, fitted in fits.items()}


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


def ours(draw: Draw) -> tuple[np.ndarray, np.ndarray, str]:
    """The same by the collaborators, gates, search and certificate of the product."""
    best = max(candidates(draw), key=lambda candidate: candidate.standing)
    policy = best.deployed_on(draw.certify, draw.num_labels)
    fresh, answers = scored(best.collaborator, best.gate, draw.fresh, draw.num_labels)
    return policy.keep(fresh.score, fresh.task), answers, f"{best.collaborator.form}, {best.gate.name}"


def candidates(draw: Draw) -> Iterator[Candidate]:
    """KCM with all gates of `kcm init`."""
    train = batch_of(draw.train)
    collaborator, trainer = learned("kan", [task_of("table", train)], train.features.shape[1], draw.num_labels, seed=0)
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
    """A line for every cell, for each table, for all language tables, and for all of them."""
    draws = pd.json_normalize(found).assign(all="all")
    draws["cell"] = [f"{draw['table']}, {draw['rows']} rows" for draw in found]
    rivals = [side for side in RIVALS if f"{side}.saved" in draws]
    means = draws.groupby("table")[[f"{side}.saved" for side in rivals]].mean()
    draws["rival"] = draws["table"].map(means.idxmax(axis=1).str.removesuffix(".saved"))
    draws["best.saved"] = [draw[f"{draw['rival']}.saved"] for _, draw in draws.iterrows()]
    if "words.saved" in draws:
        draws["texts"] = np.where(draws["words.saved"].notna(), "texts", None)
    groups = [by for by in ("cell", "table", "texts", "all") if by in draws]
    return [line(name, own) for by in groups for name, own in draws.groupby(by, sort=False)]


def line(name: str, draws: pd.DataFrame) -> dict[str, Any]:
    """Means over draws, and the paired differences with their standard errors, in points.

    `rival` is the control that saves most in the whole table, which is known afterwards; `best_difference` is over it.
    """
    figures: dict[str, Any] = {"cell": name, "draws": len(draws)}
    for side in ("ours", *RIVALS):
        own = draws.filter(like=f"{side}.").dropna(how="all")
        if len(own):
            mean = own.mean(numeric_only=True)
            figures[side] = {"saved": round(float(100 * mean[f"{side}.saved"]), 1)}
            figures[side] |= {"broken": int(own[f"{side}.broken"].sum())}
            if f"{side}.cpu_s" in own:
                figures[side] |= {"cpu_s": round(float(mean[f"{side}.cpu_s"]), 2)}
    figures["rival"] = draws["rival"].iloc[0] if draws["rival"].nunique() == 1 else "the best of each table"
    for key, side in (("saved", "theirs"), ("best", "best")):
        gap = 100 * (draws["ours.saved"] - draws[f"{side}.saved"])
        figures[f"{key}_difference"] = [round(float(gap.mean()), 1), round(float(gap.sem()), 1)]
    return figures


if __name__ == "__main__":
    main()
