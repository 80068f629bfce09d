"""The decisions of a window beside what a challenger says of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from kcm.certify.traffic import Traffic
from kcm.errors import DataError


@dataclass(frozen=True, eq=False)
class Rows:
    """The decisions of a window beside what the challenger says of them."""

    table: pd.DataFrame
    score: NDArray[np.float64]
    small_label: NDArray[np.object_]

    @classmethod
    def of(cls, window: pa.Table, score: NDArray[np.float64], small_labels: Sequence[str]) -> Rows:
        """Without columns that no certificate reads. Raises DataError where the lengths differ."""
        label = np.array(list(small_labels), dtype=object)
        if not window.num_rows == len(score) == len(label):
            raise DataError(
                f"{window.num_rows} decisions, {len(score)} gate scores and {len(label)} answers", where="window"
            )
        heavy = [name for name in ("text", "image", "features", "large_probabilities") if name in window.column_names]
        return cls(window.drop_columns(heavy).to_pandas(), score, label)

    def __len__(self) -> int:
        return len(self.table)

    def select(self, rows: NDArray[np.bool_]) -> Rows:
        """The rows that a mask [N] picks."""
        return Rows(self.table[rows].reset_index(drop=True), self.score[rows], self.small_label[rows])

    def of_task(self, task: str | None, own: Collection[str]) -> NDArray[np.bool_]:
        """The rows that the decision of `task` is for; those without a decision of their own follow the common one."""
        carried = self.table["task"]
        return np.asarray(carried == task if task is not None else ~carried.isin(list(own)), dtype=bool)

    @property
    def asked(self) -> NDArray[np.bool_]:
        """Whether the large model's answer was asked for: always where the item was escalated."""
        return np.asarray((self.table["route"] != "small") | self.table["state"].notna(), dtype=bool)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the large model's answer is there."""
        return np.asarray(self.asked & self.table["large_label"].notna(), dtype=bool)

    @property
    def disagrees(self) -> NDArray[np.bool_]:
        """Whether the challenger answers otherwise than the large model, or that never answered, or not yet."""
        return np.asarray(~self.known | (self.table["large_label"].to_numpy(dtype=object) != self.small_label))

    def traffic(self, floor: float) -> Traffic:
        """As a certificate reads it; `floor` as `recertify.certify_window`."""
        return Traffic(
            score=self.score,
            asked=self.asked,
            probability=self.table["probability"].to_numpy(dtype=np.float64),
            disagrees=self.disagrees,
            floor=floor,
            unit=self.table["unit"].to_numpy(dtype=object),
        )

    def items(self) -> list[str]:
        """The name of each item, `request id/item`, [N]."""
        return [f"{request}/{item}" for request, item in zip(self.table["request_id"], self.table["item"], strict=True)]
