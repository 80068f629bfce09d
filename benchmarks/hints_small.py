"""The small side of benchmarks/hints.py: KCM and MCM as `kcm run` fits them by default, on MiniLM's vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from hints_replay import Small
from label_tables import MINILM
from study.data import cached_features

from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.config import parse_config
from kcm.inputs.content import Content
from kcm.learners import Batch
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from kcm.learners.training.trainer import trainer_of
from pipelines.config import DEFAULT_LEARNING

KINDS: Mapping[str, NetworkKind] = {"KCM": "kan", "MCM": "random_relu"}


def vectors(texts: Sequence[str], assets: Path, folder: Path) -> np.ndarray:
    """MiniLM's vectors of texts at unit length [N, 384], which `folder` stores."""
    rows = [Content(text=text) for text in texts]
    by_row = cached_features(rows, lambda: MINILM.build(assets), MINILM.identity(assets), folder)
    features = np.stack([by_row[row] for row in rows])
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True), dtype=np.float32)


def fitted(kind: NetworkKind, train_ND: np.ndarray, labels_N: np.ndarray, num_labels: int, seed: int) -> Collaborator:
    """A collaborator fitted to train rows in closed form."""
    network = parse_config(NetworkConfig, DEFAULT_LEARNING["network"], where="network")
    settings = parse_config(TrainConfig, DEFAULT_LEARNING["train"], where="train")
    collaborator = Collaborator(train_ND.shape[1], num_labels, network, kind, seed=seed)
    unknown = torch.full((len(labels_N), num_labels), torch.nan)  # the large model is not asked about train rows
    batch = Batch(torch.from_numpy(train_ND), torch.from_numpy(labels_N), unknown, torch.ones(len(labels_N)))
    ids = [str(row) for row in range(len(labels_N))]
    task = TensorRows("table", dict.fromkeys(("train", "test"), (ids, batch)))
    trainer_of(collaborator, AnalyticConfig().build(0), [task], settings, DistillConfig(), seed=seed).run()
    return collaborator


@torch.no_grad()
def answered(collaborator: Collaborator, features_ND: np.ndarray) -> Small:
    """Labels and confidences: the gate `confidence`, the largest probability of the judge."""
    judge_NC, small_NC = collaborator(torch.from_numpy(features_ND))
    return Small(small_NC.numpy().argmax(1), judge_NC.softmax(1).numpy().max(1))
