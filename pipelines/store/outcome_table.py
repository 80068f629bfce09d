"""The outcome table of one collaborator: its logits beside the large model's recorded answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.bundle.runtime import logits
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.large import PromptMode
from kcm.learners.stream import matrix
from pipelines.stages.features import SECONDS, feature_matrix, read_features


def outcome_table(
    collaborator: Collaborator,
    features: Path,
    outcomes: Path,
    task_names: Sequence[str],
    answer_names: Sequence[str],
    splits: Sequence[Split],
) -> tuple[OutcomeTable, np.ndarray, np.ndarray]:
    """Outcome table of the rows of `splits`, their features [N, D] and the seconds each took to encode [N].

    Where `answer_names` end with none-of-these, it is the right answer for rows that are out of scope, and one that the
    collaborator cannot give: its logit is -inf.
    """
    rows, answers, names = [], [], []
    for number, name in enumerate(task_names):
        for split in splits:
            table = read_features(features, number, split=split)
            rows.append(table)
            answers.append(read_features(outcomes, number, split=split))
            names += [name] * len(table)
    row, answer = pa.concat_tables(rows), pa.concat_tables(answers)
    features_ND = feature_matrix(row)
    judge_NC, small_NC = (_with_none(each, len(answer_names), -np.inf) for each in logits(collaborator, features_ND))
    label_N = row["label"].to_numpy()
    groups = np.asarray(row["group"].to_pylist(), dtype=object)
    table = OutcomeTable(
        id=np.asarray(row["id"].to_pylist(), dtype=object),
        task=np.asarray(names, dtype=object),
        split=np.asarray(row["split"].to_pylist(), dtype=object),
        group=None if all(group is None for group in groups) else groups,
        label=np.where(label_N == OUT_OF_SCOPE, len(answer_names) - 1, label_N),
        judge_logits=judge_NC,
        small_logits=small_NC,
        prompt=np.asarray(answer["prompt"].to_pylist(), dtype=object),
        label_names=tuple(answer_names),
        **_large_columns(answer, len(answer_names)),
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
        columns = _large_columns(answer, len(table.label_names))
        parts.append(replace(table, prompt=np.array([mode] * len(table), dtype=object), **columns))
    return concatenate(parts)


def _large_columns(answer: pa.Table, num_answers: int) -> dict[str, Any]:
    return {
        "large_label": answer["large_label"].to_numpy(),
        "large_probabilities": _with_none(_distributions(matrix(answer["large_probabilities"])), num_answers, 0.0),
        "large_cost": answer["large_cost"].to_numpy(),
        "large_error": answer["large_error"].to_numpy(zero_copy_only=False),
    }


def _with_none(values_NC: np.ndarray, num_answers: int, value: float) -> np.ndarray:
    """The columns of the label list, then one of `value` for none-of-these where it can be answered; NaN rows stay."""
    missing = num_answers - values_NC.shape[1]
    padded = np.pad(values_NC, ((0, 0), (0, missing)), constant_values=value)
    padded[np.isnan(values_NC).any(axis=1)] = np.nan
    return padded


def _distributions(probabilities_NC: np.ndarray) -> np.ndarray:
    """Float32 probabilities as float64 rows that sum to one exactly enough; NaN rows stay NaN."""
    wide = probabilities_NC.astype(np.float64)
    return np.asarray(wide / wide.sum(axis=1, keepdims=True))
