"""The outcome table of one collaborator: its logits beside the large model's recorded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.cascade.runtime import logits
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.large import PromptMode
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
        prompt=np.asarray(answer["prompt"].to_pylist(), dtype=object),
        label_names=tuple(label_names),
        **_large_columns(answer),
    )
    return table, features_ND, row[SECONDS].to_numpy()


def with_prompts(
    table: OutcomeTable, folders: Mapping[PromptMode, Path], num_tasks: int, splits: Sequence[Split]
) -> OutcomeTable:
    """`table`, all under prompt `none`, followed by the same rows under each further mode, read from its folder."""
    parts = [table]
    for mode, folder in folders.items():
        answer = pa.concat_tables(
            read_features(folder, number, split=split) for number in range(num_tasks) for split in splits
        )
        if answer["id"].to_pylist() != table.id.tolist():
            raise ArtefactError(f"the answers under prompt {mode!r} are not those of the same rows", where=str(folder))
        parts.append(replace(table, prompt=np.array([mode] * len(table), dtype=object), **_large_columns(answer)))
    return concatenate(parts)


def _large_columns(answer: pa.Table) -> dict[str, Any]:
    return {
        "large_label": answer["large_label"].to_numpy(),
        "large_probabilities": _distributions(matrix(answer["large_probabilities"])),
        "large_cost": answer["large_cost"].to_numpy(),
        "large_error": answer["large_error"].to_numpy(zero_copy_only=False),
    }


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
