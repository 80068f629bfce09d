"""A cell of a study: one network, learned by one learner with one memory size, on the stream of one seed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kcm.collaborator import Collaborator, NetworkKind
from kcm.distill import DistillConfig
from kcm.kan.mlp import num_parameters
from kcm.learners.stream import TensorRows
from kcm.learners.walk import Walk
from kcm.metrics.continual import shot_accuracies, third_accuracies
from kcm.study.means import NearestClassMean
from kcm.study.settings import Setting, StudyNetwork, kind_of
from kcm.study.stream import Stream

VERSION = 1
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
    """Walk through the stream and measure; `setting` is None for the nearest class mean.

    The record holds R and b, the seconds and bytes of learner state of every task, and accuracies by class size.
    """
    place = {**asdict(cell), "task_order": [task.name for task in stream.tasks]}
    if setting is None or cell.network == "ncm":
        return place | _run_means(stream)
    kind = kind_of(cell.network, setting.learner.name)
    described = {"kind": kind, "setting": setting.model_dump(mode="json")}
    return place | described | _run_walk(kind, cell.seed, setting, stream)


def _run_walk(kind: NetworkKind, seed: int, setting: Setting, stream: Stream) -> Record:
    collaborator = Collaborator(stream.in_features, stream.num_labels, setting.network, kind, seed)
    learner = setting.learner.build(seed)
    walk = Walk(collaborator, learner, stream.tasks, setting.train, DistillConfig(), seed=seed)
    seconds, num_bytes, started = [], [], time.perf_counter()
    while not walk.done:
        if walk.step():
            now = time.perf_counter()
            seconds.append(now - started)
            num_bytes.append(state_bytes(learner.state_dict()))
            started = now
    with torch.inference_mode():
        labels, correct = _answers(stream.tasks, lambda features: collaborator(features)[1].argmax(-1))
    return {
        "num_parameters": num_parameters(collaborator),
        "R": walk.accuracy["small"],
        "b": walk.baseline["small"],
        "seconds_per_task": seconds,
        "memory_bytes_per_task": num_bytes,
    } | _by_size(labels, correct, stream)


def _run_means(stream: Stream) -> Record:
    means = NearestClassMean(stream.in_features, stream.num_labels)
    matrix, seconds = [], []
    for task in stream.tasks:
        started = time.perf_counter()
        rows = task.take("train", torch.arange(task.num_rows("train")))
        means.add(rows.features, rows.labels)
        matrix.append([float(np.mean(_answers([other], means.predict)[1])) for other in stream.tasks])
        seconds.append(time.perf_counter() - started)
    return {
        "num_parameters": 0,
        "R": matrix,
        "b": None,
        "seconds_per_task": seconds,
        "memory_bytes_per_task": [means.num_bytes] * len(matrix),
    } | _by_size(*_answers(stream.tasks, means.predict), stream)


def _answers(tasks: Sequence[TensorRows], predict: Any) -> tuple[np.ndarray, np.ndarray]:
    """Labels [N] of the scored rows of all tasks, and whether `predict` gets them right."""
    batches = [task.take("test", torch.arange(task.num_rows("test"))) for task in tasks]
    right: list[Tensor] = [predict(batch.features) == batch.labels for batch in batches]
    return torch.cat([batch.labels for batch in batches]).numpy(), torch.cat(right).numpy()


def _by_size(labels: np.ndarray, correct: np.ndarray, stream: Stream) -> Record:
    counts = stream.train_counts
    return {**shot_accuracies(labels, correct, counts), **third_accuracies(labels, correct, counts)}


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


def canonical(value: Any) -> bytes:
    """A value as JSON that does not depend on the order of keys, for fingerprints."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
