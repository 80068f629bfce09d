"""Streams: the tasks of one seed, from a task sequence and the features of its rows."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from kcm.inputs.content import Content, contents
from kcm.learners.base import Batch
from kcm.learners.training.stream import TensorRows
from kcm.tasks import TaskSequence


@dataclass(frozen=True)
class Stream:
    """Tasks with the splits `train` and `test`, in the order in which they are learned.

    `test` is whatever split the study scores. Where the task of a row is known when it is answered (`task_known`), only
    labels of that task can be the answer. `fingerprint` names the content: rows, splits, order and features.
    """

    tasks: Sequence[TensorRows]
    num_labels: int
    in_features: int
    fingerprint: str
    task_known: bool = False

    @property
    def train_counts(self) -> np.ndarray:
        """Train rows of every class, int [C]."""
        counts_C = np.zeros(self.num_labels, dtype=np.int64)
        for task in self.tasks:
            for label, count in task.label_counts("train").items():
                counts_C[label] += count
        return counts_C


def make_stream(
    sequence: TaskSequence, features: Mapping[Content, np.ndarray], features_identity: str, score_on: str
) -> Stream:
    """The stream of a sequence whose rows have `features`, float32 [D] by content; `score_on` is the split scored."""
    digest = hashlib.sha256(f"{features_identity}\0{score_on}\0{sequence.scenario}\0{sequence.label_names}".encode())
    tasks = []
    for task in sequence.tasks:
        splits = {}
        for role, split in (("train", "train"), ("test", score_on)):
            data = task.splits[split]  # type: ignore[index]  # a name of SPLITS
            ids, rows, labels = list(data["id"]), contents(data["text"], data["image"]), list(data["label"])
            keys = [content.key for content in rows]
            digest.update(f"{task.name}\0{role}\0{ids}\0{keys}\0{labels}\n".encode())
            splits[role] = ids, _batch([features[content] for content in rows], labels)
        tasks.append(TensorRows(task.name, splits))
    in_features = len(next(iter(features.values())))
    task_known = sequence.scenario == "task_incremental"
    return Stream(tasks, len(sequence.label_names), in_features, digest.hexdigest(), task_known)


def _batch(vectors: Sequence[np.ndarray], labels: Sequence[int]) -> Batch:
    no_large = torch.full((len(labels), 1), torch.nan)
    return Batch(torch.from_numpy(np.stack(vectors)), torch.tensor(labels), no_large, torch.ones(len(labels)))
