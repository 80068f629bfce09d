"""An outcomes file: what the large model said of the rows of one task, under one prompt mode."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from kcm.large import LargeAnswer, PromptMode
from kcm.learners.stream import list_column
from pipelines.stages.features import write_rows


@dataclass(frozen=True)
class Outcomes:
    """Answers as columns; probabilities, over the label list, are NaN where the model gave only a label.

    Labels count in the label list; the number after its last stands for none-of-these, -1 for no label at all: an
    answer outside the label list is no failure, one that never came is.
    """

    label_N: np.ndarray
    probabilities_NC: np.ndarray
    cost_N: np.ndarray  # seconds
    failed_N: np.ndarray

    @classmethod
    def of(cls, answers: Sequence[LargeAnswer], num_labels: int) -> Outcomes:
        """The answers of an adapter; those beyond the label list's `num_labels` are none-of-these."""
        return cls(
            label_N=np.array([-1 if a.label is None else a.label for a in answers], dtype=np.int64),
            probabilities_NC=np.stack([_over_labels(answer, num_labels) for answer in answers]),
            cost_N=np.array([a.cost.seconds for a in answers], dtype=np.float64),
            failed_N=np.array([a.error is not None and not a.off_label for a in answers], dtype=bool),
        )

    def rows(self, rows: slice) -> Outcomes:
        """Some of the answers."""
        return Outcomes(self.label_N[rows], self.probabilities_NC[rows], self.cost_N[rows], self.failed_N[rows])

    def write(self, path: Path, table: pa.Table, prompt: PromptMode = "none") -> None:
        """Write the outcomes file of `table`, whose columns `id` and `split` it repeats."""
        columns = table.select(["id", "split"])
        columns = columns.append_column("prompt", pa.array([prompt] * len(table), pa.string()))
        columns = columns.append_column("large_label", pa.array(self.label_N, pa.int64()))
        columns = columns.append_column(
            "large_probabilities", list_column(self.probabilities_NC.astype(np.float32, copy=False))
        )
        columns = columns.append_column("large_cost", pa.array(self.cost_N, pa.float64()))
        write_rows(path, columns.append_column("large_error", pa.array(self.failed_N, pa.bool_())))


def _over_labels(answer: LargeAnswer, num_labels: int) -> np.ndarray:
    """Probabilities [C] over the label list, which teach; NaN where there are none, or none-of-these was answered."""
    if answer.probabilities is None or answer.label is None or answer.label >= num_labels:
        return np.full(num_labels, np.nan, dtype=np.float32)
    probabilities_C: np.ndarray = answer.probabilities[:num_labels] / answer.probabilities[:num_labels].sum()
    return probabilities_C
