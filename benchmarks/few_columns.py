"""What should `kcm init` write for a table with few numeric columns? Scaling, and splines of columns or of mixtures.

    python benchmarks/few_columns.py [--write]

Tables: twelve formulas of AI Feynman of 2 to 4 columns, cut into 4 classes (400 train rows), and iris, wine, breast
cancer and digits (two thirds train); columns in their own units, ten seeds. All in closed form on all train rows at
once. `unit` scales every row to one length, as a run does by default; `standard` scales every column by the train rows,
as `network.scaling: first_task` does. Mixtures are the default with 128 in place of 512; curves of columns are splines
of 5 intervals, one readable curve a column and label. Beside them logistic regression on standardised columns.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.kan_local import CLOSED, FORMULAS, SEEDS, TABLES, TEST_SHARE, formula_rows, small_table
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.rows import batch, fit_at_once
from benchmarks.study.seeds import gap
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.normalizer import FrozenNormalizer
from kcm.learners.base import Batch

NETWORKS = {"mixtures": CLOSED["mixtures"][1][1], "curves": CLOSED["curves"][1][0]}
SCALINGS = ("unit", "standard")
DEFAULT, SCALED = "mixtures, unit", "mixtures, standard"
NUM_TRAIN, NUM_TEST = 400, 500
Rows = tuple[NDArray[np.float64], NDArray[np.int64], int]  # columns, labels, number of train rows


def formula(name: str, seed: int) -> Rows:
    """Fresh rows of one formula."""
    return *formula_rows(name, np.random.default_rng([len(name), seed]), NUM_TRAIN + NUM_TEST), NUM_TRAIN


def fitted(train: Batch, num_labels: int, network: NetworkConfig, scaling: str, seed: int) -> Collaborator:
    """A network in closed form."""
    collaborator = Collaborator(train.features.shape[1], num_labels, network, "kan", seed)
    if scaling == "standard":
        normalizer = FrozenNormalizer(train.features.shape[1])
        normalizer.fit([train.features])
        collaborator.add_module("normalizer", normalizer)
    fit_at_once(collaborator, train)
    return collaborator


def accuracies(rows: Rows, seed: int) -> dict[str, float]:
    """Accuracy on the test rows by contestant."""
    x_ND, y_N, num_train = rows
    train, test = batch(x_ND[:num_train], y_N[:num_train]), batch(x_ND[num_train:], y_N[num_train:])
    right = {}
    for (name, network), scaling in product(NETWORKS.items(), SCALINGS):
        collaborator = fitted(train, int(y_N.max()) + 1, network, scaling, seed)
        with torch.no_grad():
            answers_N = collaborator(test.features)[0].argmax(1)
        right[f"{name}, {scaling}"] = float((answers_N == test.labels).double().mean())
    regression = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    regression.fit(x_ND[:num_train], y_N[:num_train])
    return right | {"logistic regression": float(regression.score(x_ND[num_train:], y_N[num_train:]))}


def measured(draw: Callable[[str, int], Rows], name: str, share: float) -> dict[str, Any]:
    """Accuracies over seeds, and differences from today's default and from it with scaled columns."""
    draws = [accuracies(draw(name, seed), seed) for seed in SEEDS]
    right = {contestant: [own[contestant] for own in draws] for contestant in draws[0]}
    pairs = [(SCALED, DEFAULT), ("curves, standard", DEFAULT), ("curves, standard", SCALED)]
    gaps = {f"{one} - {other}": gap(right[one], right[other], share) for one, other in pairs}
    return {"inputs": draw(name, 0)[0].shape[1], "right": right, "gaps": gaps}


def main() -> None:
    arguments = options(__doc__, results="few_columns").parse_args()
    torch.set_num_threads(1)
    tables = {name: measured(formula, name, 0.0) for name in FORMULAS}
    tables |= {name: measured(small_table, name, TEST_SHARE / (1 - TEST_SHARE)) for name in TABLES}
    for name, figures in tables.items():
        means = {contestant: round(100 * float(np.mean(own)), 1) for contestant, own in figures["right"].items()}
        print(name, figures["inputs"], means)
    if arguments.write:
        keep("few_columns", {"machine": machine(), "tables": tables})


if __name__ == "__main__":
    main()
