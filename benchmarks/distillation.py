"""What the small model learns from the large one, piece by piece: its answers, the judge's term, the mixed targets.

    python benchmarks/distillation.py --data FOLDER [--only TABLE] [--how "closed form"] [--write]

`banking77`: GPT-4's recorded answers on MiniLM's features, 500 rows with a gold label and 1,500 without; an answer is a
label alone. `digits`: 150 and 350 rows of 64 pixels; the large model is a support vector machine fitted to 700 other
rows, and gives probabilities. Five seeds draw the rows; the rest, up to 2,000, test. Everything is at its default,
except what a line names. In closed form:

    labels          large_weight 0, rows without a label dropped
    agreeing, w     large_weight w: targets are mixed if the large model answers with the label, as in the product
    everywhere, w   the same, whatever the large model answers
    answers         the large model's answers as labels of all rows, no gold label
    both            labels, and answers to the rows without one, as far as left-out labelled rows say that they help

By steps, a KAN with 16 hidden nodes in one task, 640 or 160 steps whatever the number of rows: rows without a label
have only their teachers' losses; `judge` is the weight of L_js. An answer off the list of labels counts as none. The
same in five tasks of a fifth of the labels each, by replay of two rows a label.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor

from benchmarks.label_tables import recorded
from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.cell import for_small_steps
from benchmarks.study.rows import NETWORK, batch, task_of, text_vectors
from benchmarks.study.seeds import gap
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch, LearnerConfig
from kcm.learners.bounds import FinetuneConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.trainer import trainer_of

SIZES = {"banking77": (500, 1500), "digits": (150, 350)}  # rows with and without a label
STEPS = {"banking77": 640, "digits": 160}
SEEDS, NUM_TEST, NUM_LARGE = range(5), 2000, 700
# line: rows, large_weight, judge_weight
_LABELLED: Mapping[str, tuple[str, float, float]] = {
    "labels": ("labelled", 0, 0),
    **{f"labels, {weight}, judge {judge}": ("labelled", weight, judge) for weight in (1, 3) for judge in (0, 0.5)},
}
LINES: Mapping[str, Mapping[str, tuple[str, float, float]]] = {
    "closed form": {
        "labels": ("labelled", 0, 0),
        **{f"{where}, {weight}": ("labelled", weight, 0) for where in ("agreeing", "everywhere") for weight in (1, 3)},
        "answers": ("answers", 0, 0),
        "both": ("all", 0, 0),
        "both, agreeing, 1": ("all", 1, 0),
    },
    "steps": {
        **_LABELLED,
        "answers": ("answers", 0, 0),
        **{f"both, {weight}, judge {judge}": ("all", weight, judge) for weight in (1, 3) for judge in (0, 0.5)},
    },
    "five tasks": _LABELLED,
}
PAIRS = {  # further differences than those from `labels`
    "closed form": (("everywhere, 1", "agreeing, 1"), ("everywhere, 3", "agreeing, 3"), ("both, agreeing, 1", "both")),
    "steps": tuple(
        (f"{rows}, {weight}, judge 0.5", f"{rows}, {weight}, judge 0")
        for rows in ("labels", "both")
        for weight in (1, 3)
    ),
    "five tasks": tuple((f"labels, {weight}, judge 0.5", f"labels, {weight}, judge 0") for weight in (1, 3)),
}


def banking77(folder: Path, assets: Path, kept: Path) -> Batch:
    """Questions to a bank; GPT-4 gives a label alone."""
    frame = recorded(folder, "banking77").frame.drop_duplicates("text")
    names = sorted(set(frame["gold"]))
    large_NC = np.eye(len(names))[pd.Index(names).get_indexer(frame["gpt4"])]
    large_NC[~frame["gpt4"].isin(names).to_numpy()] = np.nan
    vectors_ND = text_vectors(frame["text"].tolist(), assets, kept)
    return batch(vectors_ND, pd.Index(names).get_indexer(frame["gold"]), large_NC)


def digits() -> Batch:
    """Handwritten digits; a support vector machine that was fitted to other rows gives probabilities."""
    values_ND, label_N = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(label_N))
    other, rows = order[:NUM_LARGE], order[NUM_LARGE:]
    large = SVC(gamma=0.001, probability=True, random_state=0).fit(values_ND[other], label_N[other])
    return batch(values_ND[rows], label_N[rows], large.predict_proba(values_ND[rows]))


def taught(rows: Batch, which: str, num_labelled: int) -> Batch:
    """The train rows of a line."""
    if which == "labelled":
        return rows.take(torch.arange(num_labelled), torch.ones(num_labelled))
    if which == "answers":
        answered = rows.large_probabilities.isfinite().all(1).nonzero()[:, 0]
        rows = rows.take(answered, torch.ones(len(answered)))
        return replace(rows, labels=rows.large_probabilities.argmax(1))
    return replace(rows, labels=torch.where(torch.arange(len(rows)) < num_labelled, rows.labels, UNLABELLED))


def everywhere(labels_NC: Tensor, large_NC: Tensor, distill: DistillConfig) -> Tensor:
    """`mixed_targets` without its conditions."""
    share = distill.large_weight / (1 + distill.large_weight)
    answered_N1 = large_NC.isfinite().all(-1, keepdim=True)
    return torch.where(answered_N1, (1 - share) * labels_NC + share * large_NC, labels_NC)


def accuracy(how: str, line: str, train: Batch, test: Batch, table: str, seed: int) -> float:
    """Accuracy of the small model on the test rows."""
    which, large_weight, judge_weight = LINES[how][line]
    rows, num_labels = taught(train, which, SIZES[table][0]), train.large_probabilities.shape[1]
    network = NETWORK if how == "closed form" else NetworkConfig()
    collaborator = Collaborator(rows.features.shape[1], num_labels, network, "kan", seed)
    parts = by_label(rows, num_labels) if how == "five tasks" else [rows]
    tasks = [task_of(str(number), part) for number, part in enumerate(parts)]
    learner = LEARNERS[how](num_labels).build(seed)
    distill = DistillConfig(large_weight=large_weight, judge_weight=judge_weight)
    settings = TrainConfig(mask_unseen=True)
    settings = settings.model_copy(update={"num_epochs": round(STEPS[table] / (len(rows) / settings.batch_size))})
    trainer = trainer_of(collaborator, learner, tasks, settings, distill, seed=seed)
    if line.startswith("everywhere"):
        with patch("kcm.learners.analytic.mixed_targets", everywhere):
            trainer.run()
    else:
        trainer.run()
    with torch.no_grad():
        return float((collaborator(test.features)[1].argmax(1) == test.labels).double().mean())


LEARNERS: Mapping[str, Callable[[int], LearnerConfig]] = {
    "closed form": lambda num_labels: AnalyticConfig(),
    "steps": lambda num_labels: FinetuneConfig(),
    "five tasks": lambda num_labels: ReplayConfig(memory=2 * num_labels),
}


def by_label(rows: Batch, num_labels: int, num_tasks: int = 5) -> list[Batch]:
    """The labelled rows in tasks of a fifth of the labels each."""
    part_N = rows.labels * num_tasks // num_labels
    indices = ((part_N == task).nonzero()[:, 0] for task in range(num_tasks))
    return [rows.take(index, torch.ones(len(index))) for index in indices]


def measured(rows: Batch, table: str, how: str) -> dict[str, Any]:
    """Accuracies by line over seeds, and paired differences with 95% intervals, wider because draws share rows."""
    started, num_train, lines = time.process_time(), sum(SIZES[table]), LINES[how]
    right: dict[str, list[float]] = {line: [] for line in lines}
    large = []
    for seed in SEEDS:
        order = torch.from_numpy(np.random.default_rng(seed).permutation(len(rows)))[: num_train + NUM_TEST]
        train, test = (rows.take(part, torch.ones(len(part))) for part in order.tensor_split([num_train]))
        large.append(float((test.large_probabilities.nan_to_num(0).argmax(1) == test.labels).double().mean()))
        for line in lines:
            right[line].append(accuracy(how, line, train, test, table, seed))
    share = len(test) / num_train
    pairs = [*((line, "labels") for line in lines if line != "labels"), *PAIRS[how]]
    gaps = {f"{line} - {other}": gap(right[line], right[other], share) for line, other in pairs}
    cpu_s = time.process_time() - started
    return {"rows": [*SIZES[table], len(test)], "cpu_s": cpu_s, "large": large, "right": right, "gaps": gaps}


def main() -> None:
    parser = options(__doc__, True, "storage/distillation", "distillation", data=("data",), only=SIZES)
    parser.add_argument("--how", choices=LINES, nargs="*", default=list(LINES))
    arguments = parser.parse_args()
    for name in arguments.only:
        rows = digits() if name == "digits" else banking77(arguments.data, arguments.assets, arguments.storage)
        for how in arguments.how:
            with for_small_steps():
                figures = measured(rows, name, how)
            print(name, how, figures, flush=True)
            if arguments.write:
                keep("distillation", {"machine": machine(), f"{name}, {how}": figures})


if __name__ == "__main__":
    main()
