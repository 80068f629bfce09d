"""The outcome table of one collaborator: its logits beside the large model's recorded answers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from kcm.cascade.runtime import logits
from kcm.cascade.table import OutcomeTable, Split
from kcm.collaborator import Collaborator
from kcm.learners.stream import matrix
from pipelines.features import SECONDS, feature_matrix, read_features


def outcome_table(
    collaborator: Collaborator,
    features: Path,
    outcomes: Path,
    task_names: Sequence[str],
    label_names: Sequence[str],
    splits: Sequence[Split],
) -> tuple[OutcomeTable, np.ndarray, np.ndarray]:
    """Outcome table of the rows of `splits`, their features [N, D] and the seconds each took to encode [N]."""
    rows, answers, names = [], [], []
    for number, name in enumerate(task_names):
        for split in splits:
            table = read_features(features, number, split=split)
            rows.append(table)
            answers.append(read_features(outcomes, number, split=split))
            names += [name] * len(table)
    row, answer = pa.concat_tables(rows), pa.concat_tables(answers)
    features_ND = feature_matrix(row)
    judge_NC, small_NC = logits(collaborator, features_ND)
    groups = np.asarray(row["group"].to_pylist(), dtype=object)
    table = OutcomeTable(
        id=np.asarray(row["id"].to_pylist(), dtype=object),
        task=np.asarray(names, dtype=object),
        split=np.asarray(row["split"].to_pylist(), dtype=object),
        group=None if all(group is None for group in groups) else groups,
        label=row["label"].to_numpy(),
        judge_logits=judge_NC,
        small_logits=small_NC,
        large_label=answer["large_label"].to_numpy(),
        large_probabilities=_distributions(matrix(answer["large_probabilities"])),
        large_cost=answer["large_cost"].to_numpy(),
        large_error=answer["large_error"].to_numpy(zero_copy_only=False),
        prompt=np.asarray(answer["prompt"].to_pylist(), dtype=object),
        label_names=tuple(label_names),
    )
    return table, features_ND, row[SECONDS].to_numpy()


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return wide / wide.sum(axis=1, keepdims=True)
