"""What collaborators say of train rows when they have not seen them: the rows that choose where there is no validate.

Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch

from kcm.collaborator.distill import DistillConfig
from kcm.learners.base import Batch
from kcm.learners.training.stream import large_distributions
from kcm.metrics.intervals import Units
from kcm.tasks.columns import matrix
from pipelines.store.features import FeaturesArtefact, feature_matrix
from pipelines.store.outcome_table import LeftOut, drawn, part_rows
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.worker import TrainerPlan

MAX_ROWS = 10_000  # of all tasks together: more tell a gate and a threshold little


def left_out_of(
    plan: TrainerPlan,
    name: str,
    state: Mapping[str, Any],
    distill: DistillConfig,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
) -> LeftOut:
    """The logits of train rows, drawn by whole units, of the tasks without validate rows, of which there is one.

    The unit of a row is its group, else all rows with its very features. `state` is that of the finished trainer.
    """
    share = MAX_ROWS / sum(features.num_train_rows[number] for number in features.tasks_without_validate)
    ids, units, features_ND, labels, large = [], [], [], [], []
    for part in part_rows(features, outcomes, ("validate",)):
        if part.source != "train":
            continue
        unit_N = _units(part.rows)
        kept_N = (part.rows["label"].to_numpy() >= 0) & drawn(unit_N, share)
        rows, answers = part.rows.filter(pa.array(kept_N)), part.answers.filter(pa.array(kept_N))
        ids += rows["id"].to_pylist()
        units.append(unit_N[kept_N])
        features_ND.append(feature_matrix(rows))
        labels.append(rows["label"].to_numpy())
        large.append(large_distributions(matrix(answers["large_probabilities"]), answers["large_label"].to_numpy()))
    batch = Batch(
        torch.from_numpy(np.concatenate(features_ND)),
        torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        torch.from_numpy(np.concatenate(large)),
        torch.ones(len(ids)),
    )
    learner = plan.learner(name)
    learner.load_state_dict(state["learner"])
    judge_NC, small_NC = learner.left_out(
        plan.collaborator(name, state), batch, Units(np.concatenate(units), len(ids)), distill
    )
    return LeftOut(pd.Index(ids, dtype=object), judge_NC.float().numpy(), small_NC.float().numpy())


def _units(rows: pa.Table) -> np.ndarray:
    """The name of every row's unit, [N]."""
    own = [row.tobytes().hex() for row in feature_matrix(rows)]
    groups = rows["group"].to_pylist() if "group" in rows.column_names else [None] * len(rows)
    return np.array([group or mine for group, mine in zip(groups, own, strict=True)], dtype=object)
