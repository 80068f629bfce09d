"""The small side of benchmarks/hints.py: KCM and MCM as `kcm run` fits them by default, on MiniLM's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.hints_replay import Small
from benchmarks.study.rows import at_unit_length, batch, learned, task_of, text_vectors
from kcm.collaborator.collaborator import Collaborator, NetworkKind

KINDS: Mapping[str, NetworkKind] = {"KCM": "kan", "MCM": "random_relu"}


def vectors(texts: Sequence[str], assets: Path, folder: Path) -> np.ndarray:
    """MiniLM's vectors of texts at unit length [N, 384], which `folder` stores."""
    return at_unit_length(text_vectors(texts, assets, folder))


def fitted(kind: NetworkKind, train_ND: np.ndarray, labels_N: np.ndarray, num_labels: int, seed: int) -> Collaborator:
    """A collaborator fitted to train rows in closed form."""
    task = task_of("table", batch(train_ND, labels_N))
    return learned(kind, [task], train_ND.shape[1], num_labels, seed)[0]


@torch.no_grad()
def answered(collaborator: Collaborator, features_ND: np.ndarray) -> Small:
    """Labels and confidences: the gate `confidence`, the largest probability of the judge."""
    judge_NC, small_NC = collaborator(torch.from_numpy(features_ND))
    return Small(small_NC.numpy().argmax(1), judge_NC.softmax(1).numpy().max(1))
