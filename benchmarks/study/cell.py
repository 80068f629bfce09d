"""A cell of a study: one network, learned by one learner with one memory size, on the stream of one seed."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kcm.collaborator.class_base import ClassBase
from kcm.collaborator.collaborator import Collaborator, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import UNLABELLED
from kcm.kan.mlp import num_parameters
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.trainer import trainer_of
from pipelines.batch.mapping import one_thread

from .data import Stream
from .settings import Setting, StudyNetwork, kind_of


@contextmanager
def for_small_steps() -> Iterator[None]:
    """Let torch use this thread alone in the block, with denormal floats as zero; what was set before is restored."""
    flushed = sys.float_info.min / 2 == 0
    torch.set_flush_denormal(True)
    try:
        with one_thread():
            yield
    finally:
        torch.set_flush_denormal(flushed)


VERSION = 2
"""Raised when a cell gives other figures than before, which makes stored ones void."""

Record = dict[str, Any]
"""Figures of a finished cell, as JSON holds them."""


@dataclass(frozen=True)
class Cell:
    """The place of a run in the study; `learner` is None for the nearest class mean, `memory_per_class` without one."""

    network: StudyNetwork
    learner: str | None
    memory_per_class: float | None
    seed: int


def run_cell(cell: Cell, setting: Setting | None, stream: Stream) -> Record:
    """Go through the stream and measure; `setting` is None for the nearest class mean.

    The record holds R and b, the CPU seconds and bytes of learner state of every task, and accuracies by class size.
    """
    place = {**asdict(cell), "task_order": [task.name for task in stream.tasks]}
    if setting is None or cell.network == "ncm":
        return place | _run_means(stream)
    kind = kind_of(cell.network, setting.learner)
    described = {"kind": kind, "setting": setting.model_dump(mode="json")}
    return place | described | _train_through(kind, cell.seed, setting, stream)


def _train_through(kind: NetworkKind, seed: int, setting: Setting, stream: Stream) -> Record:
    collaborator = Collaborator(stream.in_features, stream.num_labels, setting.network, kind, seed)
    learner = setting.learner.build(seed)
    answers = _Answers(stream, lambda features_ND: collaborator(features_ND)[1])
    matrix, initial = [], answers.accuracies() if stream.task_known else []
    trainer = trainer_of(collaborator, learner, stream.tasks, setting.train, DistillConfig(), seed=seed)
    clock = _LearningClock(trainer)
    seconds, num_bytes, started = [], [], clock.seconds()
    while not trainer.done:
        if trainer.step():
            seconds.append(clock.seconds() - started)
            num_bytes.append(state_bytes(learner.state_dict()) + base_bytes(collaborator.base))
            if stream.task_known:
                matrix.append(answers.accuracies())
            started = clock.seconds()
    return {
        "num_parameters": num_parameters(collaborator),
        # The trainer's own matrix knows of labels that are masked, ours of tasks that are known.
        "R": matrix if stream.task_known else trainer.accuracy["small"],
        "b": initial if stream.task_known else trainer.baseline["small"],
        "seconds_per_task": seconds,
        "memory_bytes_per_task": num_bytes,
    } | size_accuracies(answers.by_task(), np.asarray(stream.train_counts))


class _LearningClock:
    """CPU seconds of this process without the evaluation of R, which grows with the tasks for every learner."""

    def __init__(self, trainer: SequenceTrainer) -> None:
        self._evaluate, self._measuring = trainer.evaluate, 0.0
        trainer.evaluate = self._measure  # type: ignore[method-assign]

    def _measure(self, num_learned: int) -> dict[str, list[float | None]]:
        started = time.process_time()
        row = self._evaluate(num_learned)
        self._measuring += time.process_time() - started
        return row

    def seconds(self) -> float:
        """Seconds up to now."""
        return time.process_time() - self._measuring


def _run_means(stream: Stream) -> Record:
    means = ClassBase(stream.in_features, stream.num_labels, "means")
    answers = _Answers(stream, means)
    matrix, seconds = [], []
    for task in stream.tasks:
        started = time.process_time()
        rows = task.take("train", torch.arange(task.num_rows("train"))).labelled()
        means.add(means.sums_of([(rows.features, rows.labels)]))
        seconds.append(time.process_time() - started)
        matrix.append(answers.accuracies())
    return {
        "num_parameters": 0,
        "R": matrix,
        "b": None,
        "seconds_per_task": seconds,
        "memory_bytes_per_task": [base_bytes(means)] * len(matrix),
    } | size_accuracies(answers.by_task(), np.asarray(stream.train_counts))


class _Answers:
    """A model's answers to the scored rows of every task; restricted to the task's labels if the task is known."""

    def __init__(self, stream: Stream, scores_of: Callable[[Tensor], Tensor]) -> None:
        self._stream, self._scores_of = stream, scores_of

    def accuracies(self) -> list[float]:
        """Accuracy on every task."""
        return [float(correct.mean()) for _, correct in self.by_task()]

    @torch.inference_mode()
    def by_task(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Labels [N] of every task's rows, and the correctness of the model's answers."""
        for task in self._stream.tasks:
            rows = task.take("test", torch.arange(task.num_rows("test")))
            scores_NC = self._scores_of(rows.features)
            if self._stream.task_known:
                num_labels = self._stream.num_labels
                scores_NC = F.pad(scores_NC, (0, num_labels - scores_NC.shape[1]))  # of labels still to come
                other_C = torch.ones(num_labels, dtype=torch.bool)
                other_C[sorted(set(task.label_counts("train")) - {UNLABELLED})] = False
                scores_NC = scores_NC.masked_fill(other_C, -torch.inf)
            yield rows.labels.numpy(), (scores_NC.argmax(1) == rows.labels).numpy()


def size_accuracies(
    answers: Iterable[tuple[NDArray[np.int64], NDArray[np.bool_]]], counts_C: NDArray[np.int64]
) -> dict[str, float | None]:
    """Accuracies over classes by their train rows `counts_C`: means over classes with test rows, or None.

    Many-, medium- and few-shot classes (Liu et al., arXiv 1904.05160), and the head, middle and tail third of all; ties
    go by the order of the labels, and the head takes the remainder first.
    """
    labels_N, correct_N = (np.concatenate(parts) for parts in zip(*answers, strict=True))
    thirds = np.array_split(np.argsort(-counts_C, kind="stable"), 3)
    bands = {"many": counts_C > 100, "medium": (counts_C >= 20) & (counts_C <= 100), "few": counts_C < 20}
    rows_C = np.bincount(labels_N, minlength=len(counts_C))
    accuracy_C = np.bincount(labels_N, correct_N, len(counts_C)) / np.maximum(rows_C, 1)
    accuracies: dict[str, float | None] = {}
    for name, band in (bands | dict(zip(("head", "middle", "tail"), thirds, strict=True))).items():
        defined = accuracy_C[band][rows_C[band] > 0]
        accuracies[name] = float(defined.mean()) if len(defined) else None
    return accuracies


def state_bytes(state: Any) -> int:
    """Bytes of a learner's state: its tensors and ids, plain numbers as 8 bytes each."""
    if isinstance(state, Tensor):
        return state.nbytes
    if isinstance(state, str):
        return len(state.encode())
    if isinstance(state, Mapping):
        return sum(state_bytes(value) for value in state.values())
    if isinstance(state, Sequence):
        return sum(state_bytes(value) for value in state)
    return 0 if state is None else 8


def base_bytes(base: ClassBase | None) -> int:
    """Bytes of the sums over rows that a base keeps; 0 without one."""
    return 0 if base is None else sum(getattr(base, name).nbytes for name in base.SUMS)


def cell_fingerprint(cell: Cell, setting: Setting | None, stream_fingerprint: str) -> str:
    """Hexadecimal digest of what decides the figures of a cell."""
    described = None if setting is None else setting.model_dump(mode="json")
    parts = [VERSION, cell.network, cell.learner, cell.memory_per_class, cell.seed, described, stream_fingerprint]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()[:32]
