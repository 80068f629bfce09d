"""The share kept by our certificates and by an exact binomial test, with the same score and the same rows.

    python benchmarks/against_binomial.py --data FOLDER [--only logs] [--draws 200] [--write]

`logs`: what `kcm route certify` keeps of logs of two models, 800 rows a draw, epsilon .05, beside the exact test on all
800 rows. Four logs are simulated, so that the exact test keeps .27, .36, .19 and .11 of them; the small model is right
on 5% of the rows where the large one is wrong. One is GSM8K as RouteLLM recorded Mixtral and GPT-4, scored out of fold
by logistic regression on words.
`cells`: what the test of `kcm run` keeps of certify rows, with the score of logistic regression on TF-IDF vectors.
There are 28 cells of tables, label counts and row counts; 65% of the rows train and 25% certify. The large model is
right on 96%.
`shares`: the same cells by the exact test, at what look 1, 2, 3, 5 and 8 may spend under four splits of delta.
FOLDER has clinc150/data_full.json and llm/*.csv as in benchmarks/label_tables.py, and
routellm_gsm8k/gsm8k_responses.csv (github.com/lm-sys/RouteLLM, Apache-2.0). `--write` puts the figures into
benchmarks/results/against_binomial.json.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from rich.pretty import pprint
from scipy.stats import binom
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from benchmarks.machine import machine
from benchmarks.script import keep, options
from kcm.cascade.frontier import Frontier
from kcm.cascade.policy import Decision
from kcm.cascade.scored import ScoredOutcomes
from kcm.certification.certificate import CertificateConfig, certify
from kcm.certification.ledger import look_delta, question_delta
from kcm.routing.certify import certify_table, certifying_splits
from kcm.routing.config import RequestConfig
from kcm.routing.table import RoutingTable

DELTA = 0.1
LOG_EPSILON, LOG_ROWS = 0.05, 800
KEPT = (0.27, 0.36, 0.19, 0.11)  # shares kept at which the expected loss of the simulated logs reaches epsilon
EPSILON, LARGE_RIGHT = 0.02, 0.96
LABELS = {"clinc": (10, 30, 75, 150), "banking77": (77,), "ecommerce": (248,), "technology": (2,)}
ROWS = (1_000, 1_500, 2_000, 3_250, 4_000)
SPLITS: dict[str, Callable[[int], float]] = {
    "6/pi^2 v^2": partial(look_delta, DELTA),
    "80/16/3.2": lambda number: DELTA * 0.8 * 0.2 ** (number - 1),
    "90/9/.9": lambda number: DELTA * 0.9 * 0.1 ** (number - 1),
    "80/12/3.0/1.4": partial(question_delta, DELTA),
}


def exact_cut(rows: ScoredOutcomes, epsilon: float, delta: float) -> float:
    """The threshold of a sceptic: the longest prefix of the ranking whose every part passes an exact binomial test.

    Rows of equal score stand or fall together, the losses within them counted first.
    """
    is_loss = rows.large_correct & ~rows.small_correct
    order = np.lexsort((~is_loss, -rows.score))
    num_lost = np.cumsum(is_loss[order])
    passes = num_lost <= binom.ppf(delta, len(order), epsilon) - (
        binom.cdf(binom.ppf(delta, len(order), epsilon), len(order), epsilon) > delta
    )
    return -math.inf if passes.all() else float(rows.score[order][np.argmin(passes)])  # the whole tie is escalated


def exact(rows: ScoredOutcomes, epsilon: float, delta: float) -> float:
    """The share that a sceptic keeps."""
    return float((rows.score > exact_cut(rows, epsilon, delta)).mean())


def paired(our_savings: np.ndarray, their_savings: np.ndarray) -> dict[str, float]:
    """The means, and the 95% interval of the mean difference, over draws."""
    differences = our_savings - their_savings
    half = 1.96 * differences.std(ddof=1) / math.sqrt(len(differences))
    figures = {
        "ours": our_savings.mean(),
        "exact": their_savings.mean(),
        "low": differences.mean() - half,
        "high": differences.mean() + half,
    }
    return {name: round(float(value), 4) for name, value in figures.items()}


def by_route(rows: ScoredOutcomes, seed: int) -> float:
    """The share that `kcm route certify` keeps of all rows, those that choose among them."""
    name_N = np.array([f"question {row}" for row in range(len(rows))], dtype=object)
    table = RoutingTable(
        name=name_N,
        item=name_N,
        small_correct=rows.small_correct,
        large_correct=rows.large_correct,
        large_error=np.zeros(len(rows), dtype=bool),
    )
    request = RequestConfig(epsilon=LOG_EPSILON, delta=DELTA, seed=seed)
    certificate = certify_table(table, certifying_splits(table, seed, credit_wins=True), rows.score, request)
    if certificate["decision"] == "escalate_all":
        return 0.0
    threshold = certificate["threshold"]
    return float((rows.score > (-math.inf if threshold is None else threshold)).mean())


def simulated(keep_rate: float, rng: np.random.Generator) -> ScoredOutcomes:
    """A log whose loss grows with the rank, so that whoever keeps `kept` of it loses epsilon."""
    rank_N = rng.random(LOG_ROWS)
    lost_N = rng.random(LOG_ROWS) < np.minimum(0.9, 2 * LOG_EPSILON * rank_N / keep_rate**2)
    won_N = ~lost_N & (rng.random(LOG_ROWS) < 0.05)
    both_N = ~lost_N & ~won_N & (rng.random(LOG_ROWS) < 0.9)
    return ScoredOutcomes(score=1 - rank_N, small_correct=won_N | both_N, large_correct=lost_N | both_N)


def gsm8k(folder: Path) -> ScoredOutcomes:
    """All questions, scored by the probability that Mixtral is right or GPT-4 wrong, out of fold."""
    frame = pd.read_csv(folder / "routellm_gsm8k" / "gsm8k_responses.csv")
    small_N = frame["mistralai/Mixtral-8x7B-Instruct-v0.1"].to_numpy(bool)
    large_N = frame["gpt-4-1106-preview"].to_numpy(bool)
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2).fit_transform(frame["prompt"])
    predictions = cross_val_predict(LogisticRegression(), words, small_N | ~large_N, cv=5, method="predict_proba")
    return ScoredOutcomes(score=predictions[:, 1], small_correct=small_N, large_correct=large_N)


def logs(folder: Path, num_draws: int) -> Iterator[dict[str, Any]]:
    """Each log: what is kept by ours and by the exact test on all rows."""
    log_rows = gsm8k(folder)

    def recorded_rows(rng: np.random.Generator) -> ScoredOutcomes:
        positions = rng.choice(len(log_rows), LOG_ROWS, replace=False)
        return ScoredOutcomes(
            score=log_rows.score[positions],
            small_correct=log_rows.small_correct[positions],
            large_correct=log_rows.large_correct[positions],
        )

    draws = {f"simulated, {keep_rate} kept": partial(simulated, keep_rate) for keep_rate in KEPT} | {
        "GSM8K": recorded_rows
    }
    for name, draw in draws.items():
        tables = [draw(np.random.default_rng([16, number])) for number in range(num_draws)]
        our_savings = np.array([by_route(rows, number) for number, rows in enumerate(tables)])
        yield {"log": name} | paired(our_savings, np.array([exact(rows, LOG_EPSILON, DELTA) for rows in tables]))


def texts(folder: Path, table: str) -> pd.DataFrame:
    """Rows of text and label."""
    if table != "clinc":
        frame = pd.read_csv(folder / "llm" / f"{table}.csv", dtype=str, keep_default_na=False)
        return pd.DataFrame({"text": frame["text"], "label": frame["gold"]})
    splits = json.loads((folder / "clinc150" / "data_full.json").read_text(encoding="utf-8"))
    return pd.DataFrame([*splits["train"], *splits["val"], *splits["test"]], columns=["text", "label"])


Cell = tuple[str, int, int]


def cells(folder: Path, num_draws: int) -> Iterator[tuple[Cell, list[tuple[ScoredOutcomes, ScoredOutcomes]]]]:
    """Each cell of table, number of labels and of rows: in every draw the rows that choose, and those that certify."""
    for table, counts in LABELS.items():
        all_rows = texts(folder, table)
        for count in counts:
            mean = len(all_rows) * count / all_rows["label"].nunique()
            for num_rows in (rows for rows in ROWS if rows <= mean):
                cells = [draw_cell(all_rows, count, num_rows, np.random.default_rng([7, d])) for d in range(num_draws)]
                yield (table, count, num_rows), cells


def draw_cell(
    all_rows: pd.DataFrame, num_labels: int, num_rows: int, rng: np.random.Generator
) -> tuple[ScoredOutcomes, ScoredOutcomes]:
    """Train rows scored out of fold, and certify rows."""
    labels = rng.choice(all_rows["label"].unique(), num_labels, replace=False)
    frame = all_rows[all_rows["label"].isin(labels)]
    frame = frame.iloc[rng.permutation(len(frame))[:num_rows]]
    num_train, num_certify = int(0.65 * len(frame)), int(0.25 * len(frame))
    train, rows = frame[:num_train], frame[num_train : num_train + num_certify]
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit(train["text"])
    model = LogisticRegression(C=10, max_iter=200)
    train_ND, label_N = words.transform(train["text"]), train["label"].to_numpy()
    model.fit(train_ND, label_N)
    folds = rng.integers(3, size=num_train)
    said_NC = np.zeros((num_train, len(model.classes_)))
    for fold in range(3):
        part = LogisticRegression(C=10, max_iter=200).fit(train_ND[folds != fold], label_N[folds != fold])
        said_NC[np.ix_(folds == fold, np.searchsorted(model.classes_, part.classes_))] = part.predict_proba(
            train_ND[folds == fold]
        )

    def judged(probability_NC: np.ndarray, label_N: np.ndarray) -> ScoredOutcomes:
        right_N = model.classes_[probability_NC.argmax(1)] == label_N
        large_N = rng.random(len(label_N)) < LARGE_RIGHT
        return ScoredOutcomes(score=probability_NC.max(1), small_correct=right_N, large_correct=large_N)

    return judged(said_NC, label_N), judged(
        model.predict_proba(words.transform(rows["text"])), rows["label"].to_numpy()
    )


def by_run(validate: ScoredOutcomes, rows: ScoredOutcomes, delta: float) -> float:
    """The share of certify rows that the test of `kcm run` keeps."""
    searched = Decision.of(Frontier.of(validate).cheapest(EPSILON).threshold)
    certificate = certify(validate, rows, searched, CertificateConfig(epsilon=EPSILON, delta=DELTA), delta=delta)
    if certificate.decision == "escalate_all":
        return 0.0
    return float((rows.score > (-math.inf if certificate.threshold is None else certificate.threshold)).mean())


def in_cells(folder: Path, num_draws: int) -> dict[str, list[dict[str, Any]]]:
    """What is kept in every cell: by the test of `kcm run`, and by the exact one under each split of delta."""
    savings, shares = [], []
    for (table, count, num_rows), draws in cells(folder, num_draws):
        cell = {"table": table, "labels": count, "rows": num_rows}
        first = question_delta(DELTA, 1)
        our_savings = np.array([by_run(validate, rows, first) for validate, rows in draws])
        savings.append(cell | paired(our_savings, np.array([exact(rows, EPSILON, first) for _, rows in draws])))
        for name, split in SPLITS.items():
            looks = {
                f"look {number}": round(float(np.mean([exact(rows, EPSILON, split(number)) for _, rows in draws])), 3)
                for number in (1, 2, 3, 5, 8)
            }
            shares.append(cell | {"split": name} | looks)
    return {"cells": savings, "shares": shares}


def main() -> None:
    """Print the figures, and write them with `--write`."""
    parser = options(__doc__, results="against_binomial")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=["logs", "cells"], help="logs, or cells and shares")
    parser.add_argument("--draws", type=int, default=200, help="of every log; cells are drawn 6 times")
    arguments = parser.parse_args()
    figures: dict[str, Any] = {"machine": machine()}
    if arguments.only != "cells":
        figures["logs"] = list(logs(arguments.data, arguments.draws))
    if arguments.only != "logs":
        figures |= in_cells(arguments.data, min(6, arguments.draws))
    pprint(figures)
    if arguments.write:
        keep("against_binomial", figures)


if __name__ == "__main__":
    main()
