"""What a continual-learning method decides: which tasks to stream, what to remember, and what to add to the loss."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from kcm.learners.memory import MemoryRow


@dataclass(frozen=True)
class Batch:
    """Rows of one step: features [N, D], labels [N], large probabilities [N, C] (NaN where there are none).

    `weights` [N] are 1, and 0 for the padding that makes every rank's slice equally long.
    """

    features: Tensor
    labels: Tensor
    large_probabilities: Tensor
    weights: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor, weights: Tensor) -> Batch:
        """The rows at `index`, with these weights."""
        return Batch(self.features[index], self.labels[index], self.large_probabilities[index], weights)

    def reweighted(self, weights: Tensor) -> Batch:
        """The same rows with other weights."""
        return Batch(self.features, self.labels, self.large_probabilities, weights)

    def join(self, other: Batch) -> Batch:
        """This batch's rows followed by the other's."""
        return Batch(
            torch.cat([self.features, other.features]),
            torch.cat([self.labels, other.labels]),
            torch.cat([self.large_probabilities, other.large_probabilities]),
            torch.cat([self.weights, other.weights]),
        )


class Learner:
    """Base of the continual-learning methods; on its own it is plain finetuning, one task after the other."""

    restarts: ClassVar[bool] = False  # networks start anew at every task

    def tasks_to_stream(self, task: int) -> range:
        """Positions of the tasks whose train rows task number `task` is trained on."""
        return range(task, task + 1)

    def extra_rows(self, step: int) -> Batch | None:
        """Rows that join the step's batch; a function of the step alone, so that every rank agrees."""
        return None

    def remembers(self) -> bool:
        """Whether `remember` wants the rows of a finished task."""
        return False

    def remember(self, rows: Iterable[MemoryRow]) -> None:
        """Offer the train rows of the task that has just been learned."""

    def candidates(self, ids: list[str], labels: list[int], task: int) -> list[int]:
        """Positions among a finished task's rows that could enter the memory; only these rows are read."""
        return []

    def memory_rows(self) -> list[MemoryRow]:
        """What is remembered now."""
        return []

    def state_dict(self) -> dict[str, Any]:
        """All that the next step needs, loadable with `weights_only=True`."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
