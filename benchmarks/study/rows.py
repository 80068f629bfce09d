"""What the small studies share: rows in memory, texts by MiniLM, and learning as `kcm run` does by default."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.study.features import cached_features
from kcm.collaborator.collaborator import Collaborator, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.config import parse_config
from kcm.encoders.text import TextEncoderConfig
from kcm.inputs.content import Content
from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.learners.training.closed_form import ClosedFormTrainer
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.stream import TensorRows
from pipelines.config import DEFAULT_LEARNING

MINILM = TextEncoderConfig(model="sentence-transformers/all-MiniLM-L6-v2")
NETWORK = parse_config(NetworkConfig, DEFAULT_LEARNING["network"], where="network")
TRAIN = parse_config(TrainConfig, DEFAULT_LEARNING["train"], where="train")


def batch(features_ND: NDArray[Any], label_N: NDArray[Any], large_NC: NDArray[Any] | None = None) -> Batch:
    """Rows as a learner reads them; without `large_NC` no large model answers them."""
    large_NC = np.full((len(label_N), 1), np.nan) if large_NC is None else large_NC
    features, large = (torch.from_numpy(np.asarray(part, dtype=np.float32)) for part in (features_ND, large_NC))
    return Batch(features, torch.from_numpy(np.asarray(label_N, dtype=np.int64)), large, torch.ones(len(label_N)))


def task_of(name: str, train: Batch, test: Batch | None = None) -> TensorRows:
    """A task. The first train row stands in for missing test rows, so that a trainer spends no time on them."""
    test = train.take(torch.arange(1), torch.ones(1)) if test is None else test
    splits = {"train": train, "test": test}
    # Replay chooses rows by their ids.
    ids = {split: [f"{name}, {row}" for row in range(len(part))] for split, part in splits.items()}
    return TensorRows(name, {split: (ids[split], part) for split, part in splits.items()})


def learned(
    kind: NetworkKind,
    tasks: Sequence[TensorRows],
    dim: int,
    num_labels: int,
    seed: int,
    network: NetworkConfig = NETWORK,
) -> tuple[Collaborator, ClosedFormTrainer]:
    """A collaborator that has learned the tasks as `kcm run` does by default, and its trainer."""
    collaborator = Collaborator(dim, num_labels, network, kind, seed)
    trainer = ClosedFormTrainer(collaborator, AnalyticConfig().build(seed), tasks, TRAIN, DistillConfig(), seed=seed)
    trainer.run()
    return collaborator, trainer


def fit_at_once(collaborator: Collaborator, rows: Batch, config: AnalyticConfig | None = None) -> Analytic:
    """Fit mixtures and coefficients to all rows in closed form, as a first task, without a trainer."""
    learner = Analytic(config or AnalyticConfig())
    collaborator.fit_mixtures([rows.features])
    learner.absorb(collaborator, rows, DistillConfig(), Ranks())
    learner.solve(collaborator, Ranks())
    return learner


def text_vectors(texts: Sequence[str], assets: Path, folder: Path) -> NDArray[np.float32]:
    """MiniLM's vectors of texts [N, D], which `folder` stores."""
    rows = [Content(text=text) for text in texts]
    by_row = cached_features(rows, partial(MINILM.build, assets), MINILM.identity(assets), folder)
    return np.stack([by_row[row] for row in rows])


def at_unit_length(vectors_ND: NDArray[Any]) -> NDArray[np.float32]:
    """Each row at length 1; a row of zeros stays zero."""
    length_N1 = np.linalg.norm(vectors_ND, axis=1, keepdims=True)
    return np.asarray(vectors_ND / np.maximum(length_N1, 1e-12), dtype=np.float32)
