"""Rows without a label in a closed form: the large model's answer replaces the label, as far as that helps.

A few labels and many answers can be better than the labels alone, but answers that are often wrong do harm. So the sums
of such rows are separate from the sums of labelled rows. The labelled rows, each left out, choose the weight of the
answers. Shapes: N rows, C labels, W candidates.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from kcm.closed_form.gcv import RidgeSums
from kcm.inputs.labels import UNLABELLED
from kcm.learners.base import Batch

WEIGHTS = (0.0, 0.1, 1.0)  # weight of a row with an answer, if a row with a label has 1; ties go to the first
_MULTIPLIER = 0x1E3779B97F4A7C15
MAX_ROWS = 4096  # about this many labelled rows of a task choose: those whose features have the smallest hashes


class AnsweredRows:
    """Sums of the rows so far with an answer in place of a label, and the weight of these rows."""

    def __init__(self) -> None:
        self.sums: RidgeSums | None = None
        self.weight = 0.0
        self.right_W = torch.zeros(len(WEIGHTS), dtype=torch.float64)  # labelled rows, by candidate

    def add(self, part: RidgeSums) -> None:
        """Add the sums of more rows."""
        if self.sums is not None:
            part.add(self.sums)
        self.sums = part

    def grow(self, num_labels: int) -> None:
        """Extend the sums to new labels."""
        self.sums = self.sums and self.sums.grown(num_labels)

    def joined(self, labelled: RidgeSums) -> RidgeSums:
        """The sums of labelled rows plus the weighted sums of these rows."""
        return labelled.plus(self.sums, self.weight) if self.sums and self.weight else labelled

    def totals(self, labelled: RidgeSums) -> torch.Tensor:
        """The field `totals_K` of `joined`."""
        return labelled.totals_K + self.weight * self.sums.totals_K if self.sums else labelled.totals_K

    def choose(self, num_right: Callable[[], torch.Tensor]) -> None:
        """Choose the weight with which most labelled rows of all tasks so far are right when left out.

        `num_right` counts right rows of the task that ends, over all ranks, at the current weight. Earlier tasks were
        counted when they ended, so this choice depends on the order of tasks; nothing else in a closed form does.
        """
        for candidate, weight in enumerate(WEIGHTS):
            self.weight = weight
            self.right_W[candidate] += float(num_right())
        self.weight = WEIGHTS[int(self.right_W.argmax())]

    def state_dict(self) -> dict[str, Any]:
        """The whole state; empty without rows."""
        if self.sums is None:
            return {}
        return {"sums": self.sums.state_dict(), "right": self.right_W, "weight": self.weight}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        if state:
            self.sums = RidgeSums.from_state(state["sums"])
            self.right_W, self.weight = state["right"], state["weight"]


def answered_rows(batch: Batch, surer_than: float) -> Batch:
    """The rows without a label whose answer is surer than `surer_than`; the answer becomes their label."""
    surest_N, answer_N = batch.large_probabilities.nan_to_num(0.0).max(-1)
    taught_N = (batch.labels == UNLABELLED) & (batch.weights > 0) & (surest_N > surer_than)
    index = taught_N.nonzero()[:, 0]
    rows = batch.take(index, batch.weights[index])
    return Batch(rows.features, answer_N[index], rows.large_probabilities, rows.weights)


def choosing(batch: Batch, num_rows: int) -> Batch:
    """The rows of a batch that choose, given the task's number of rows; the same rows for any number of ranks."""
    most = MAX_ROWS * 2**32 // max(num_rows, MAX_ROWS)
    bits_ND = batch.features.contiguous().view(torch.int32).long()
    odd_D = 2 * torch.arange(bits_ND.shape[1], device=bits_ND.device) + 1
    # A multiply-shift hash: integers overflow alike on every device. Its upper half is the hash.
    hashes_N = ((bits_ND * (odd_D * _MULTIPLIER)).sum(1) >> 32) & 0xFFFFFFFF
    index = ((hashes_N < most) & (batch.weights > 0)).nonzero()[:, 0]
    return batch.take(index, batch.weights[index])
