"""Rows of an outcome table as search, certificate and report read them: scalars alone, without logits. N rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.table import ColumnTable, OutcomeTable, joined_groups
from kcm.metrics.calibration import confidences


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRows(ColumnTable):
    """One row per (item, prompt mode), a hundred bytes each; every column [N].

    Columns are those of `OutcomeTable`; of its logits are left the small model's label, whether judge and small model
    are right, and the judge's `confidence` under a temperature. `score` is the gate's, `small_cost` the seconds that
    features took.
    """

    task: NDArray[np.object_]
    split: NDArray[np.object_]
    prompt: NDArray[np.object_]
    group: NDArray[np.object_] | None
    label: NDArray[np.int64]
    small_label: NDArray[np.int64]
    large_label: NDArray[np.int64]
    large_error: NDArray[np.bool_]
    none_label: NDArray[np.int64]
    none_error: NDArray[np.bool_]
    large_cost: NDArray[np.float64]
    small_cost: NDArray[np.float64]
    score: NDArray[np.float64]
    small_correct: NDArray[np.bool_]
    judge_correct: NDArray[np.bool_]
    confidence: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.score)

    @classmethod
    def of(cls, table: OutcomeTable, score: ArrayLike, small_cost: ArrayLike, temperature: float) -> MeasuredRows:
        """The rows of a table with their gate scores [N] and the small side's cost [N]."""
        taken: dict[str, Any] = {field.name: getattr(table, field.name, None) for field in fields(cls)}
        return cls(
            **taken
            | {
                "score": np.asarray(score, dtype=np.float64),
                "small_cost": np.asarray(small_cost, dtype=np.float64),
                "judge_correct": table.judge_logits.argmax(1) == table.label,
                "confidence": confidences(table.judge_logits, temperature),
            }
        )

    @classmethod
    def joined(cls, parts: Iterable[MeasuredRows]) -> MeasuredRows:
        """The rows of several tables, of which there is one at least."""
        found = list(parts)
        names = [field.name for field in fields(cls) if field.name != "group"]
        columns = {name: np.concatenate([getattr(part, name) for part in found]) for name in names}
        return cls(**columns, group=joined_groups([(part.group, len(part)) for part in found]))

    @property
    def large_correct(self) -> NDArray[np.bool_]:
        """The large model is right under the row's prompt, [N]; a failed or off-label answer is wrong."""
        return np.asarray(self.large_label == self.label)

    @property
    def large_none_correct(self) -> NDArray[np.bool_]:
        """The large model is right under prompt `none`, [N]; a failed or off-label answer is wrong."""
        return np.asarray(self.none_label == self.label)

    def scored(self, rows: ArrayLike) -> ScoredOutcomes:
        """Some rows, all of one prompt mode, as frontier and certificate read them."""
        chosen = self.select(rows)
        return ScoredOutcomes(
            score=chosen.score,
            small_correct=chosen.small_correct,
            large_correct=chosen.large_correct,
            large_none_correct=chosen.large_none_correct if (chosen.prompt != "none").any() else None,
            large_none_error=chosen.none_error,
            group=chosen.group,
            task=chosen.task,
        )
