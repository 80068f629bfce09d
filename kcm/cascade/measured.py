"""Rows of an outcome table as search, certificate and report read them: scalars alone, without logits. N rows."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.table import OutcomeRows, OutcomeTable
from kcm.metrics.calibration import confidences


@dataclass(frozen=True, kw_only=True, eq=False)
class MeasuredRows(OutcomeRows):
    """One row per (item, prompt mode), a hundred bytes each; every column [N].

    Of the logits are left the small model's label, whether judge and small model are right, and the judge's
    `confidence` under a temperature. `score` is the gate's, `small_cost` the seconds that features took.
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
