"""What the large model said: its answers on disk, and beside a collaborator's logits as the outcome table.

Shapes: N rows, C labels, D features.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.bundle.runtime import logits
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders.network import Runtime
from kcm.errors import ArtefactError
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.large import LargeAnswer, LinearHead, PromptMode
from kcm.learners.stream import list_column, matrix
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import SECONDS, FeaturesArtefact, feature_matrix, read_task, task_file, write_rows

HEAD = "large_head.safetensors"
IDENTITY = "large.json"


class OutcomesArtefact(Artefact):
    """The large model's answer to each row of the features: prompt, label, probabilities, cost, error."""

    kind = "outcomes"

    @property
    def identity(self) -> str:
        """The identity of the large model."""
        identity: str = self._facts["identity"]
        return identity

    def task(self, number: int) -> pa.Table:
        """The answers to the rows of one task."""
        return read_task(self.folder, number)

    @property
    def runtime(self) -> Runtime | None:
        """What computed the large model's encoder; None where there is no choice, torch before there was one."""
        found: Runtime | None = self._facts.get("runtime", "torch")
        return found

    @property
    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        return facts

    @property
    def usage(self) -> dict[str, Any]:
        """What the answers took together, as far as it was counted: `rows`, `tokens`, `currency`."""
        stored: dict[str, Any] = json.loads((self.folder / IDENTITY).read_text(encoding="utf-8"))
        return {name: stored[name] for name in ("rows", "tokens", "currency") if name in stored}

    @property
    def head(self) -> LinearHead | None:
        """The head of a classifier; None where the large model has none."""
        file = self.folder / HEAD
        return LinearHead.load(file) if file.exists() else None


def usage_of(answers: Sequence[LargeAnswer]) -> dict[str, Any]:
    """What these answers took together."""
    return {
        "rows": len(answers),
        "tokens": sum(answer.cost.tokens for answer in answers),
        "currency": sum(answer.cost.currency for answer in answers),
    }


def write_identity(folder: Path, identity: str, **took: Any) -> None:
    """Leave the large model's identity beside its answers, and what these took together."""
    write_json(folder / IDENTITY, {"identity": identity} | took)


@dataclass(frozen=True)
class Answers:
    """Answers as columns; probabilities, over the label list, are NaN where the model gave only a label.

    Labels count in the label list; the number after its last stands for none-of-these, -1 for no label at all: an
    answer outside the label list is no failure, one that never came is.
    """

    label_N: np.ndarray
    probabilities_NC: np.ndarray
    cost_N: np.ndarray  # seconds
    failed_N: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[LargeAnswer], num_labels: int) -> Answers:
        """The answers of an adapter; those beyond the label list's `num_labels` are none-of-these."""
        return cls(
            label_N=np.array([-1 if a.label is None else a.label for a in answers], dtype=np.int64),
            probabilities_NC=np.stack([_over_labels(answer, num_labels) for answer in answers]),
            cost_N=np.array([a.cost.seconds for a in answers], dtype=np.float64),
            failed_N=np.array([a.error is not None and not a.off_label for a in answers], dtype=bool),
        )

    def write(self, folder: Path, tables: Iterable[pa.Table], prompt: PromptMode = "none", *, first: int = 0) -> None:
        """Write a file per task: the answers to the rows of `tables`, whose columns `id` and `split` are repeated.

        `first` is the number of the first task among those of the sequence.
        """
        start = 0
        for number, table in enumerate(tables, first):
            rows = slice(start, start := start + len(table))
            columns = {
                "id": table["id"],
                "split": table["split"],
                "prompt": pa.array([prompt] * len(table), pa.string()),
                "large_label": pa.array(self.label_N[rows], pa.int64()),
                "large_probabilities": list_column(self.probabilities_NC[rows].astype(np.float32, copy=False)),
                "large_cost": pa.array(self.cost_N[rows], pa.float64()),
                "large_error": pa.array(self.failed_N[rows], pa.bool_()),
            }
            write_rows(task_file(folder, number), pa.table(columns))


@dataclass(frozen=True, eq=False)
class TableWithFeatures:
    """An outcome table under prompt `none`, with the features [N, D] of its rows and the seconds that they took [N]."""

    table: OutcomeTable
    features_ND: np.ndarray
    seconds_N: np.ndarray


def outcome_table(
    collaborator: Collaborator, features: FeaturesArtefact, outcomes: OutcomesArtefact, splits: Sequence[Split]
) -> TableWithFeatures:
    """The outcome table of the rows of `splits`, task by task and split by split.

    Where none-of-these can be answered, it is the right answer for rows that are out of scope, and one that the
    collaborator cannot give: its logit is -inf.
    """
    rows, answers, names = [], [], []
    answer_names = features.names.answers
    for number, name in enumerate(features.names.tasks):
        for split in splits:
            rows.append(features.task(number, split=split))
            answers.append(in_label_list(read_task(outcomes.folder, number, split=split), len(features.names.labels)))
            names += [name] * len(rows[-1])
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
        label_names=answer_names,
        **_large_columns(answer, len(answer_names)),
    )
    return TableWithFeatures(table, features_ND, row[SECONDS].to_numpy())


def with_prompts(
    table: OutcomeTable, folders: Mapping[PromptMode, Path], num_tasks: int, splits: Sequence[Split]
) -> OutcomeTable:
    """`table`, all under prompt `none`, followed by the same rows under each further mode, read from its folder."""
    parts = [table]
    for mode, folder in folders.items():
        parts_of_tasks = [read_task(folder, number, split=split) for number in range(num_tasks) for split in splits]
        answer = pa.concat_tables(parts_of_tasks)
        if answer["id"].to_pylist() != table.id.tolist():
            raise ArtefactError(f"the answers under prompt {mode!r} are not those of the same rows", where=str(folder))
        columns = _large_columns(answer, len(table.label_names))
        parts.append(replace(table, prompt=np.array([mode] * len(table), dtype=object), **columns))
    return concatenate(parts)


def in_label_list(answer: pa.Table, num_labels: int) -> pa.Table:
    """Answers under the label list of the sequence, which may have grown since they were given.

    Labels that came later have probability 0, and none-of-these has the number after the last label.
    """
    if (known := answer["large_probabilities"].type.list_size) == num_labels:
        return answer
    label_N = answer["large_label"].to_numpy()
    wider_NC = _with_none(matrix(answer["large_probabilities"]), num_labels, 0.0)
    columns = {
        "large_label": pa.array(np.where(label_N == known, num_labels, label_N)),
        "large_probabilities": list_column(wider_NC),
    }
    for name, column in columns.items():
        answer = answer.set_column(answer.column_names.index(name), name, column)
    return answer


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


def _over_labels(answer: LargeAnswer, num_labels: int) -> np.ndarray:
    """Probabilities [C] over the label list, which teach; NaN where there are none, or none-of-these was answered."""
    if answer.probabilities is None or answer.label is None or answer.label >= num_labels:
        return np.full(num_labels, np.nan, dtype=np.float32)
    probabilities_C: np.ndarray = answer.probabilities[:num_labels] / answer.probabilities[:num_labels].sum()
    return probabilities_C
