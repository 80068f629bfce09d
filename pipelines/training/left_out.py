"""Collaborators' answers to left-out train rows, which choose if there are no validate rows.

Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import matrix
from kcm.learners.base import Batch, Learner
from kcm.learners.training.stream import large_distributions
from kcm.metrics.intervals import Units
from pipelines.batch.outcome_table import LeftOut, PartRows, drawn, part_rows
from pipelines.store.features import FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact

MAX_ROWS = 10_000  # of all tasks together: more tell a gate and a threshold little


def deciding_rows(features: FeaturesArtefact, outcomes: OutcomesArtefact) -> Iterator[PartRows]:
    """The rows that choose gate and policy: validate rows, and of the tasks without them train rows.

    Of these about `MAX_ROWS` are drawn by whole units, and all that are out of scope. The unit of a row is its group,
    else all rows with its very features.
    """
    num_rows = sum(features.num_train_rows[number] for number in features.tasks_without_validate)
    for part in part_rows(features, outcomes, ("validate",)):
        if part.source == "train":
            label_N = part.rows["label"].to_numpy()
            drawn_N = (label_N >= 0) & drawn(_units(part.rows), MAX_ROWS / num_rows)
            is_selected = pa.array(drawn_N | (label_N == OUT_OF_SCOPE))
            part = replace(part, rows=part.rows.filter(is_selected), answers=part.answers.filter(is_selected))
        yield part


def left_out_of(
    collaborator: Collaborator, learner: Learner, distill: DistillConfig, parts: Iterable[PartRows]
) -> LeftOut:
    """The logits of the labelled train rows of `deciding_rows`, of which there is one, after training."""
    ids, units, features_ND, labels, large = [], [], [], [], []
    for part in parts:
        if part.source != "train":
            continue
        labelled = pa.array(part.rows["label"].to_numpy() >= 0)
        rows, answers = part.rows.filter(labelled), part.answers.filter(labelled)
        ids += rows["id"].to_pylist()
        units.append(_units(rows))
        features_ND.append(feature_matrix(rows))
        labels.append(rows["label"].to_numpy())
        large.append(large_distributions(matrix(answers["large_probabilities"]), answers["large_label"].to_numpy()))
    batch = Batch(
        torch.from_numpy(np.concatenate(features_ND)),
        torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        torch.from_numpy(np.concatenate(large)),
        torch.ones(len(ids)),
    )
    judge_NC, small_NC = learner.left_out(collaborator, batch, Units(np.concatenate(units), len(ids)), distill)
    return LeftOut(pd.Index(ids, dtype=object), judge_NC.float().numpy(), small_NC.float().numpy())


def _units(rows: pa.Table) -> np.ndarray:
    """The name of every row's unit, [N]."""
    own = [row.tobytes().hex() for row in feature_matrix(rows)]
    groups = rows["group"].to_pylist() if "group" in rows.column_names else [None] * len(rows)
    return np.array([group or row for group, row in zip(groups, own, strict=True)], dtype=object)
