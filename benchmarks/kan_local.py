"""KAN minus MLP by number of inputs, where KANs are said to win: few inputs, learned one task after the other.

    python benchmarks/kan_local.py [--only NAME ...] [--write]

Streams: peaks in sequence, whose tasks are neighbouring ranges of 1 to 32 inputs (the sum over inputs of one bump a
range, cut into 3 classes; the label list is shared); formulas of AI Feynman (arXiv 1905.11481) of 2, 3 and 4 inputs,
cut into 4 classes each, the task known at test; iris, wine, breast cancer and digits, class by class. Every input is
standardised over the train rows of all tasks, because a grid needs a known range.

By steps, a KAN, an MLP and a linear map learn with `finetune`, EWC and SI. KAN and MLP have
equal numbers of parameters and two shapes each: one hidden layer and a narrow grid, or a single layer and a fine grid;
one hidden layer or two. A linear map has no width to match. Each network gets six trials with each learner on stream
100: both shapes (the linear map: one) by three rates, with three strengths in turn. The streams that are reported are
drawn by other seeds; splits of the four tables share their rows with stream 100. In closed form stream 100 chooses one
of two sizes: for curves of the inputs, learned curves of mixtures (the product's default has 512) and ReLU units.
A task takes 60 steps of 32 rows. The figure is the mean accuracy over tasks after the last one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer, load_digits, load_iris, load_wine
from sklearn.model_selection import train_test_split
from torch import nn

from benchmarks.machine import machine
from benchmarks.script import keep, options
from benchmarks.study.cell import for_small_steps
from benchmarks.study.rows import batch, task_of
from benchmarks.study.seeds import gap
from examples.learners.ewc import EwcConfig
from examples.learners.si import SiConfig
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.kan.mlp import MLP, num_parameters
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch, Learner
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.trainer import trainer_of

SEEDS, TUNING, STEPS, BATCH = range(10), 100, 60, 32
NUM_TRAIN, NUM_TEST, TEST_SHARE = 192, 500, 1 / 3
RATES = (0.004, 0.02, 0.1)
KINDS: tuple[NetworkKind, ...] = ("kan", "mlp", "linear")
LEARNERS: Mapping[str, tuple[float, ...]] = {
    "finetune": (0,),
    "ewc": (10, 100, 1000),
    "si": (1, 10, 100),
}
ONE_LAYER = NetworkConfig(hidden=(), shared=True)
_MIXTURES = {"basis": "pspline", "grid_size": 4, "spline_order": 2}
CLOSED: Mapping[str, tuple[NetworkKind, tuple[NetworkConfig, ...]]] = {
    "curves": ("kan", tuple(ONE_LAYER.model_copy(update={"grid_size": size}) for size in (5, 30))),
    "mixtures": ("kan", tuple(ONE_LAYER.model_copy(update=_MIXTURES | {"mixing": size}) for size in (32, 128))),
    "relu": ("kan", tuple(ONE_LAYER.model_copy(update={"basis": "relu", "mixing": size}) for size in (128, 512))),
    "linear": ("linear", (ONE_LAYER,)),
}
Formula = Callable[..., NDArray[np.float64]]
Ranges = tuple[tuple[float, float], ...]
FORMULAS: Mapping[str, tuple[Formula, Ranges]] = {
    "I.6.20": (lambda x, s: np.exp(-((x / s) ** 2) / 2) / (np.sqrt(2 * np.pi) * s), ((1, 3),) * 2),
    "I.12.1": (lambda mu, n: mu * n, ((1, 5),) * 2),
    "I.25.13": (lambda q, c: q / c, ((1, 5),) * 2),
    "I.26.2": (lambda n, angle: np.arcsin(n * np.sin(angle)), ((0, 1), (1, 5))),
    "I.6.20b": (lambda x, m, s: np.exp(-(((x - m) / s) ** 2) / 2) / (np.sqrt(2 * np.pi) * s), ((1, 3),) * 3),
    "I.15.10": (lambda m, v, c: m * v / np.sqrt(1 - (v / c) ** 2), ((1, 5), (1, 2), (3, 10))),
    "I.16.6": (lambda c, u, v: (u + v) / (1 + u * v / c**2), ((1, 5),) * 3),
    "I.27.6": (lambda d1, d2, n: 1 / (1 / d1 + n / d2), ((1, 5),) * 3),
    "I.8.14": (lambda a, b, c, d: np.hypot(b - a, d - c), ((1, 5),) * 4),
    "I.13.4": (lambda m, u, v, w: m * (u**2 + v**2 + w**2) / 2, ((1, 5),) * 4),
    "I.24.6": (lambda m, u, v, x: m * (u**2 + v**2) * x**2 / 4, ((1, 3),) * 4),
    "I.43.16": (lambda mu, q, v, d: mu * q * v / d, ((1, 5),) * 4),
}
TABLES = {"iris": load_iris, "wine": load_wine, "breast cancer": load_breast_cancer, "digits": load_digits}


@dataclass(frozen=True)
class Stream:
    """Train and test rows by task; `task_known` restricts an answer to the labels of the row's task.

    `share` is the number of test rows over train rows where seeds share their rows, 0 where each seed draws its own.
    """

    tasks: list[tuple[Batch, Batch]]
    num_labels: int
    task_known: bool = False
    share: float = 0.0

    @property
    def num_inputs(self) -> int:
        """The length of a row."""
        return self.tasks[0][0].features.shape[1]


@dataclass(frozen=True)
class Trial:
    """Everything that tuning chooses."""

    shape: int
    rate: float
    strength: float


def peaks(num_inputs: int, seed: int, num_tasks: int = 4) -> Stream:
    """Task k holds rows whose inputs all lie in range k; the label is a third of the mean height of their bumps."""
    rng = np.random.default_rng([num_inputs, seed])
    tasks: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for task in range(num_tasks):
        x_ND = rng.uniform(-1, 1, (NUM_TRAIN + NUM_TEST, num_inputs))
        height_N = np.exp(-((x_ND / 0.4) ** 2) / 2).mean(1)
        tasks.append((2 * task + x_ND, quantiles(height_N, 3)))
    return stream(tasks)


def feynman(num_inputs: int, seed: int) -> Stream:
    """One formula a task, with a label list of its own."""
    rng = np.random.default_rng([num_inputs, seed])
    tasks: list[tuple[NDArray[np.float64], NDArray[np.int64]]] = []
    for name, (_, ranges) in FORMULAS.items():
        if len(ranges) == num_inputs:
            x_ND, class_N = formula_rows(name, rng, NUM_TRAIN + NUM_TEST)
            tasks.append((x_ND, 4 * len(tasks) + class_N))
    return stream(tasks, task_known=True)


def formula_rows(name: str, rng: np.random.Generator, num_rows: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Rows of a formula, and which quarter of its values each is in."""
    formula, ranges = FORMULAS[name]
    low, high = np.array(ranges, dtype=float).T
    x_ND = rng.uniform(low, high, (num_rows, len(ranges)))
    return x_ND, quantiles(formula(*x_ND.T), 4)


def quantiles(values: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Classes of equal size, by value."""
    return np.digitize(values, np.quantile(values, np.arange(1, count) / count))


def table(name: str, seed: int) -> Stream:
    """A table of scikit-learn, one class a task; two for digits."""
    x_ND, y_N, num_train = small_table(name, seed)
    group_N = y_N // (2 if name == "digits" else 1)
    index = [np.flatnonzero(group_N == task) for task in range(group_N.max() + 1)]
    sizes = [int((rows < num_train).sum()) for rows in index]
    return stream([(x_ND[rows], y_N[rows]) for rows in index], sizes, share=TEST_SHARE / (1 - TEST_SHARE))


def small_table(name: str, seed: int) -> tuple[NDArray[np.float64], NDArray[np.int64], int]:
    """A table of scikit-learn in the order of a split by the seed, and how many rows train."""
    x_ND, y_N = TABLES[name](return_X_y=True)
    train, test = train_test_split(np.arange(len(y_N)), test_size=TEST_SHARE, stratify=y_N, random_state=seed)
    order = np.concatenate([train, test])
    return x_ND[order], y_N[order], len(train)


def stream(
    tasks: list[tuple[NDArray[np.float64], NDArray[np.int64]]],
    sizes: list[int] | None = None,
    task_known: bool = False,
    share: float = 0.0,
) -> Stream:
    """The first rows of every task train; inputs are standardised by them."""
    sizes = sizes or [NUM_TRAIN] * len(tasks)
    train_ND = np.concatenate([x_ND[:size] for (x_ND, _), size in zip(tasks, sizes, strict=True)])
    mean, scale = train_ND.mean(0), np.maximum(train_ND.std(0), 1e-6)
    batches = [
        (batch((x_ND[:size] - mean) / scale, y_N[:size]), batch((x_ND[size:] - mean) / scale, y_N[size:]))
        for (x_ND, y_N), size in zip(tasks, sizes, strict=True)
    ]
    return Stream(batches, 1 + max(int(y_N.max()) for _, y_N in tasks), task_known, share)


def shapes(kind: NetworkKind, num_inputs: int, num_labels: int) -> tuple[NetworkConfig, ...]:
    """Two shapes of about 72 (inputs + labels) parameters; one of a linear map."""
    hidden = NetworkConfig(hidden=(8,), shared=True)  # 9 coefficients an edge; an MLP is matched to it
    if kind == "linear":
        return (ONE_LAYER,)
    budget = 72 * (num_inputs + num_labels)
    if kind == "kan":
        size = max(2, round(budget / (num_inputs * num_labels)) - 3)
        return hidden, ONE_LAYER.model_copy(update={"grid_size": size, "base_activation": "none"})
    sizes = {width: num_parameters(MLP([num_inputs, width, width, num_labels])) for width in range(2, 80)}
    width = min(sizes, key=lambda width: abs(sizes[width] - budget))
    return hidden, NetworkConfig(hidden=(width, width), shared=True, mlp_width=width)


def accuracy(
    rows: Stream, kind: NetworkKind, network: NetworkConfig, learner: Learner, rate: float, seed: int
) -> float:
    """Mean accuracy over tasks once all are learned."""
    collaborator = Collaborator(rows.num_inputs, rows.num_labels, network, kind, seed)
    collaborator.add_module("normalizer", nn.Identity())  # inputs are standardised already
    tasks = [task_of(f"task {number}", train) for number, (train, _) in enumerate(rows.tasks)]
    num_epochs = round(STEPS * len(tasks) / sum(-(-len(train) // BATCH) for train, _ in rows.tasks))
    settings = TrainConfig(num_epochs=num_epochs, batch_size=BATCH, learning_rate=rate, mask_unseen=True)
    trainer_of(collaborator, learner, tasks, settings, DistillConfig(), seed=seed).run()
    return float(np.mean(list(by_task(collaborator, rows))))


@torch.no_grad()
def by_task(collaborator: Collaborator, rows: Stream) -> Iterator[float]:
    """Accuracy on the test rows of every task."""
    for train, test in rows.tasks:
        scores_NC = collaborator(test.features)[0]
        if rows.task_known:
            other_C = torch.ones(rows.num_labels, dtype=torch.bool)
            other_C[train.labels] = False
            scores_NC = scores_NC.masked_fill(other_C, -torch.inf)
        yield float((scores_NC.argmax(1) == test.labels).double().mean())


def by_steps(rows: Stream, kind: NetworkKind, learner: str, trial: Trial, seed: int) -> float:
    """The accuracy of one network and learner trained by steps."""
    network = shapes(kind, rows.num_inputs, rows.num_labels)[trial.shape]
    built = Learner()
    if learner == "ewc":
        built = EwcConfig(name="examples.learners.ewc:EwcConfig", strength=trial.strength).build(seed)
    if learner == "si":
        built = SiConfig(name="examples.learners.si:SiConfig", strength=trial.strength).build(seed)
    return accuracy(rows, kind, network, built, trial.rate, seed)


def in_closed_form(rows: Stream, name: str, size: int, seed: int) -> float:
    """The accuracy of one network of `CLOSED`; ReLU units have no bias, so they get a constant input."""
    kind, networks = CLOSED[name]
    if name == "relu":
        pairs = [(with_constant(train), with_constant(test)) for train, test in rows.tasks]
        rows = replace(rows, tasks=pairs)
    learner = AnalyticConfig(name="analytic").build(seed)
    return accuracy(rows, kind, networks[size], learner, RATES[0], seed)


def with_constant(part: Batch) -> Batch:
    """The same rows with an input that is always 1."""
    return replace(part, features=nn.functional.pad(part.features, (0, 1), value=1.0))


def tuned(rows: Stream, kind: NetworkKind, learner: str) -> Trial:
    """The best of six trials on the stream of the tuning seed; of equals the first."""
    strengths = LEARNERS[learner]
    pairs = enumerate(product((0, 0 if kind == "linear" else 1), RATES))
    trials = (Trial(shape, rate, strengths[(place + place // 3) % len(strengths)]) for place, (shape, rate) in pairs)
    return max(dict.fromkeys(trials), key=lambda trial: by_steps(rows, kind, learner, trial, TUNING))


def measured(draw: Callable[[int], Stream]) -> dict[str, Any]:
    """Accuracies by learner and network over seeds, and KAN minus MLP with paired 95% intervals."""
    started, tuning, streams = time.process_time(), draw(TUNING), [draw(seed) for seed in SEEDS]
    right: dict[str, dict[str, list[float]]] = {}
    chosen = {}
    for learner in LEARNERS:
        trials = {kind: tuned(tuning, kind, learner) for kind in KINDS}
        chosen[learner] = {kind: list(vars(trial).values()) for kind, trial in trials.items()}
        right[learner] = {
            kind: [by_steps(rows, kind, learner, trial, seed) for seed, rows in enumerate(streams)]
            for kind, trial in trials.items()
        }
    closed: dict[str, list[float]] = {}
    right["closed form"] = closed
    for name in CLOSED:
        sizes = range(len(CLOSED[name][1]))
        size = max(sizes, key=lambda size: in_closed_form(tuning, name, size, TUNING))
        closed[name] = [in_closed_form(rows, name, size, seed) for seed, rows in enumerate(streams)]
    share = streams[0].share
    gaps = {learner: gap(right[learner]["kan"], right[learner]["mlp"], share) for learner in LEARNERS}
    gaps["closed form"] = gap(closed["mixtures"], closed["relu"], share)
    gaps["closed form, curves"] = gap(closed["curves"], closed["relu"], share)
    gaps["closed form, readable"] = gap(closed["curves"], closed["mixtures"], share)
    return {
        "inputs": streams[0].num_inputs,
        "labels": streams[0].num_labels,
        "cpu_s": time.process_time() - started,
        "chosen": chosen,
        "gaps": gaps,
        "right": right,
    }


STREAMS: Mapping[str, Callable[[int], Stream]] = {
    **{f"peaks, {size}": partial(peaks, size) for size in (1, 2, 4, 8, 16, 32)},
    **{f"Feynman, {size}": partial(feynman, size) for size in (2, 3, 4)},
    **{name: partial(table, name) for name in TABLES},
}


def main() -> None:
    arguments = options(__doc__, results="kan_local", only=STREAMS).parse_args()
    for name in arguments.only:
        with for_small_steps():
            figures = measured(STREAMS[name])
        print(name, f"{figures['cpu_s']:.0f} CPU s", figures["gaps"], flush=True)
        if arguments.write:
            keep("kan_local", {"machine": machine(), name: figures})


if __name__ == "__main__":
    main()
