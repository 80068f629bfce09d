"""The large model's answers to all rows, on disk. Shapes: N rows, C labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from kcm.encoders.config import Runtime
from kcm.inputs.vectors import list_column, matrix
from kcm.large import LargeAnswer, LinearHead
from pipelines.store.artefact import write_json
from pipelines.store.sequence import ShardedArtefact

HEAD = "large_head.safetensors"
IDENTITY = "large.json"
FAILED = "large_error"  # the column that is true where an answer never came


class OutcomesArtefact(ShardedArtefact):
    """The large model's answer to each row: label, probabilities, cost and error."""

    kind = "outcomes"

    @property
    def identity(self) -> str:
        """The identity of the large model."""
        return self._facts["identity"]

    @property
    def runtime(self) -> Runtime | None:
        """The runtime of the large model's encoder; None if there is no choice, or no encoder."""
        return self._facts.get("runtime")

    @property
    def device(self) -> str:
        """The kind of device that computed them; `cpu` for recorded answers."""
        return self._facts.get("device", "cpu")

    @property
    def _facts(self) -> dict[str, Any]:
        return self.json(IDENTITY)

    @property
    def usage(self) -> dict[str, Any]:
        """Total usage of the answers as far as it was counted: `rows`, `tokens`, `currency`."""
        return {name: self._facts[name] for name in ("rows", "tokens", "currency") if name in self._facts}

    @property
    def asked(self) -> dict[str, Any]:
        """The usage, and problems with requested answers: `failed`, among these `waiting` for the server, and
        `off_label` with some `off_label_replies`.
        """
        faults = ("failed", "waiting", "off_label", "off_label_replies")
        return self.usage | {name: self._facts[name] for name in faults if name in self._facts}

    @property
    def head(self) -> LinearHead | None:
        """The head of a classifier; None for a large model without a head."""
        return LinearHead.load(self.file(HEAD)) if self.has(HEAD) else None


def write_identity(folder: Path, identity: str, **costs: Any) -> None:
    """Write the large model's identity and the total usage next to its answers."""
    write_json(folder / IDENTITY, {"identity": identity} | costs)


@dataclass(frozen=True)
class Answers:
    """Answers as columns; probabilities, over the label list, are NaN if the model gave only a label.

    Labels are indices into the label list; the next index is none-of-these, and -1 is no label. An answer outside the
    label list is not a failure; an answer that never arrived is.
    """

    label_N: np.ndarray
    probabilities_NC: np.ndarray
    cost_N: np.ndarray  # seconds
    failed_N: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[LargeAnswer], num_labels: int) -> Answers:
        """The answers of an adapter; indices beyond the label list's `num_labels` are none-of-these."""
        label_N = np.array([-1 if a.label is None else a.label for a in answers], dtype=np.int64)
        probabilities_by_row = {row: a.probabilities for row, a in enumerate(answers) if a.probabilities is not None}
        num_answers = max(map(len, probabilities_by_row.values()), default=num_labels)
        probabilities_NA = np.full((len(answers), num_answers), np.nan, dtype=np.float32)
        if probabilities_by_row:
            probabilities_NA[list(probabilities_by_row)] = list(probabilities_by_row.values())
        return cls(
            label_N=label_N,
            probabilities_NC=over_labels(probabilities_NA, label_N, num_labels),
            cost_N=np.array([a.cost.seconds for a in answers], dtype=np.float64),
            failed_N=np.array([a.error is not None and not a.off_label for a in answers], dtype=bool),
        )

    def table(self, rows: pa.Table) -> pa.Table:
        """The answers to `rows`, whose columns `id` and `split` are repeated."""
        return pa.table(
            {
                "id": rows["id"],
                "split": rows["split"],
                "large_label": pa.array(self.label_N, pa.int64()),
                "large_probabilities": list_column(self.probabilities_NC.astype(np.float32, copy=False)),
                "large_cost": pa.array(self.cost_N, pa.float64()),
                FAILED: pa.array(self.failed_N, pa.bool_()),
            }
        )


def in_label_list(answer: pa.Table, num_labels: int) -> pa.Table:
    """Answers under the label list of the sequence, which may have grown since.

    Labels added later have probability 0, and none-of-these moves after the last label.
    """
    if (list_size := answer["large_probabilities"].type.list_size) == num_labels:
        return answer
    label_N = answer["large_label"].to_numpy()
    wider_NC = with_none(matrix(answer["large_probabilities"]), num_labels, 0.0)
    columns = {
        "large_label": pa.array(np.where(label_N == list_size, num_labels, label_N)),
        "large_probabilities": list_column(wider_NC),
    }
    for name, column in columns.items():
        answer = answer.set_column(answer.column_names.index(name), name, column)
    return answer


def with_none(values_NC: np.ndarray, num_answers: int, value: float) -> np.ndarray:
    """Probabilities over the label list plus a column of `value` if none-of-these is possible; NaN rows stay NaN."""
    missing = num_answers - values_NC.shape[1]
    padded = np.pad(values_NC, ((0, 0), (0, missing)), constant_values=value)
    padded[np.isnan(values_NC).any(axis=1)] = np.nan
    return padded


def over_labels(probabilities_NC: np.ndarray, label_N: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities float32 over the label list (the targets of training), from probabilities over all answers.

    NaN if there are none, or if none-of-these was answered.
    """
    known_NC = probabilities_NC[:, :num_labels]
    with np.errstate(invalid="ignore"):  # 0 / 0 if none-of-these is certain
        known_NC = known_NC / known_NC.sum(axis=1, keepdims=True)
    known_NC[(label_N < 0) | (label_N >= num_labels)] = np.nan
    return np.asarray(known_NC, dtype=np.float32)
