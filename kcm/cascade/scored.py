"""The rows that frontier and certificate read: a gate score, and the correctness of both models."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.table import ColumnTable, MeasuredRows, OutcomeTable
from kcm.errors import DataError


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
