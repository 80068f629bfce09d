"""The outcome table: the answers of judge, small and large model to every item.

Search, certificate, metrics and report read only this table, or figures measured on it. Shapes: N rows, C labels.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from kcm.errors import DataError
from kcm.inputs.vectors import list_column
from kcm.metrics.calibration import confidences

Split = Literal["validate", "certify", "test"]
SPLITS: tuple[Split, ...] = ("validate", "certify", "test")


@dataclass(frozen=True, eq=False)
class ColumnTable:
    """Base of tables whose fields are columns of one length, [N] or [N, …], or values for all rows."""

    def select(self, rows: ArrayLike) -> Self:
        """The rows selected by a boolean mask or an array of positions."""
        index = np.asarray(rows)
        return replace(self, **{name: column[index] for name, column in self._columns.items()})

    @classmethod
    def joined(cls, tables: Iterable[Self]) -> Self:
        """The rows of several tables with the same columns; at least one table."""
        first, *later_tables = tables
        parts = [table._columns for table in (first, *later_tables)]
        return replace(first, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})

    @property
    def _columns(self) -> dict[str, NDArray[Any]]:
        """The columns that are present."""
        columns = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in columns.items() if isinstance(column, np.ndarray)}


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeRows(ColumnTable):
    """One row per item.

    `large_label` is -1 if the large model answered outside the label list or failed; `large_error` tells which of the
    two. `group` is None for a row that stands alone.
    """

    task: NDArray[np.object_]
    split: NDArray[np.object_]
    group: NDArray[np.object_]
    label: NDArray[np.int64]
    large_label: NDArray[np.int64]
    large_error: NDArray[np.bool_]
    large_cost: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.label)

    @property
    def large_correct(self) -> NDArray[np.bool_]:
        """L: the large model is right, [N]; a failed or off-label answer is wrong."""
        return np.asarray(self.large_label == self.label)


@dataclass(frozen=True, kw_only=True, eq=False)
class OutcomeTable(OutcomeRows):
    """The rows with the logits of judge and small model, and the large model's probabilities.

    Logits may be -inf if a label cannot be answered (a class not seen yet, none-of-these), never NaN.
    `large_probabilities` rows are NaN if the large model gave only a label. `large_cost` is in the adapter's unit.
    """

    id: NDArray[np.object_]
    judge_logits: NDArray[np.float64]  # [N, C]
    small_logits: NDArray[np.float64]  # [N, C]
    large_probabilities: NDArray[np.float64]  # [N, C]
    label_names: tuple[str, ...]

    @property
    def small_label(self) -> NDArray[np.int64]:
        """The small model's answer, [N]."""
        return np.asarray(self.small_logits.argmax(1))

    @property
    def small_correct(self) -> NDArray[np.bool_]:
        """S: the small model is right, [N]."""
        return np.asarray(self.small_label == self.label)

    def to_arrow(self) -> pa.Table:
        """The rows as stored in a file; the metadata holds the label names."""
        arrays = {name: _to_arrow(column) for name, column in self._columns.items()}
        return pa.table(arrays).replace_schema_metadata({"label_names": json.dumps(self.label_names)})


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRows(OutcomeRows):
    """The rows that search, certificate and report read: only scalars, a hundred bytes per row; every column [N].

    In place of the logits it has the small model's label, whether judge and small model are right, and the judge's
    `confidence` under a temperature. `score` is the gate's score, `small_cost` the seconds that the features took.
    """

    small_label: NDArray[np.int64]
    small_cost: NDArray[np.float64]
    score: NDArray[np.float64]
    small_correct: NDArray[np.bool_]
    judge_correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]

    @classmethod
    def of(cls, table: OutcomeTable, score: ArrayLike, small_cost: ArrayLike, temperature: float) -> MeasuredRows:
        """The rows of a table with their gate scores [N] and the small side's cost [N]."""
        values: dict[str, Any] = {field.name: getattr(table, field.name, None) for field in fields(cls)}
        return cls(
            **values
            | {
                "score": np.asarray(score, dtype=np.float64),
                "small_cost": np.asarray(small_cost, dtype=np.float64),
                "judge_correct": table.judge_logits.argmax(1) == table.label,
                "confidence": confidences(table.judge_logits, temperature),
            }
        )


def _to_arrow(column: NDArray[Any]) -> Any:
    if column.ndim == 2:
        return list_column(column)
    return pa.array(column, type=pa.string() if column.dtype == object else None)


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredOutcomes(ColumnTable):
    """One row per item; every column has shape [N].

    `score`: gate score, larger = surer. `small_correct`: S. `large_correct`: L.
    `large_error`: the large model failed (its answer counts as wrong in L).
    `group`: rows drawn together, such as the sentences of one review; a row without a group (None) stands alone.
    `task`: the row's task, if it has one.

    Raises DataError for NaN or infinite scores and for columns of different lengths.
    """

    score: NDArray[np.float64]
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    large_error: NDArray[np.bool_] | None = None
    group: NDArray[np.object_] | None = None
    task: NDArray[np.object_] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "score", np.asarray(self.score, dtype=np.float64))
        for name in ("small_correct", "large_correct", "large_error"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, np.asarray(getattr(self, name), dtype=np.bool_))
        for field in fields(self):
            column = getattr(self, field.name)
            if column is not None and column.shape != self.score.shape:
                raise DataError(f"column has shape {column.shape}, expected {self.score.shape}", where=field.name)
        bad = np.flatnonzero(~np.isfinite(self.score))
        if len(bad):
            raise DataError(
                f"gate scores must be finite: {len(bad)} are not, the first in row {bad[0]} ({self.score[bad[0]]})",
                where="score",
            )

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, rows: OutcomeTable | MeasuredRows, score: ArrayLike) -> ScoredOutcomes:
        """The rows of a table with their gate scores [N]."""
        return cls(
            score=np.asarray(score, dtype=np.float64),
            small_correct=rows.small_correct,
            large_correct=rows.large_correct,
            large_error=rows.large_error,
            group=rows.group,
            task=rows.task,
        )

    @property
    def certified_baseline(self) -> NDArray[np.bool_]:
        """L as a certificate counts it, [N]: a failed answer counts as right, to the cascade's disadvantage."""
        return self.large_correct if self.large_error is None else self.large_correct | self.large_error

    def cascade_correct(self, kept_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether a cascade that keeps these rows is right, [N]."""
        return np.where(kept_N, self.small_correct, self.large_correct)

    def by_task(self) -> dict[str, ScoredOutcomes]:
        """The rows of every task. Raises DataError if rows carry no task."""
        if self.task is None:
            raise DataError("rows carry no task", where="task", hint="Give a task column or use the global scope")
        return {str(name): self.select(self.task == name) for name in dict.fromkeys(self.task)}
