"""Experience replay: every batch is joined by remembered rows (Chaudhry et al., 1902.10486)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from kcm.learners.base import Batch, Learner
from kcm.learners.memory import Memory, MemoryRow, row_key, select


class Replay(Learner):
    """Joins `batch_size` rows of a memory of `capacity` to every step, in seeded passes over the memory."""

    def __init__(self, capacity: int, batch_size: int, seed: int) -> None:
        self.memory = Memory(capacity, seed)
        self.batch_size, self.seed = batch_size, seed

    def extra_rows(self, step: int) -> Batch | None:
        """Slice `step` of an endless sequence of seeded permutations of the memory."""
        if not len(self.memory):
            return None
        features, labels, large = self.memory.tensors()
        count, size = len(labels), min(self.batch_size, len(labels))
        index = torch.cat([self._pass(n, count) for n in self._passes(step, size, count)])
        start = step * size % count
        chosen = index[start : start + size]
        return Batch(features[chosen], labels[chosen], large[chosen], torch.ones(size))

    @staticmethod
    def _passes(step: int, size: int, count: int) -> range:
        return range(step * size // count, ((step + 1) * size - 1) // count + 1)

    def _pass(self, number: int, count: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(count, generator=generator)

    def remembers(self) -> bool:
        """A memory without capacity remembers nothing, which makes replay equal to finetuning."""
        return self.memory.capacity > 0

    def candidates(self, ids: list[str], labels: list[int], task: int) -> list[int]:
        """The task's own sketch: no other row of it can enter the memory."""
        keys = [row_key(self.memory.seed, row_id) for row_id in ids]
        return select(keys, [(task, label) for label in labels], self.memory.capacity)

    def remember(self, rows: Iterable[MemoryRow]) -> None:
        """Merge the finished task's rows into the memory."""
        self.memory.add(rows)

    def memory_rows(self) -> list[MemoryRow]:
        """The memory's rows, in key order."""
        return self.memory.rows

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the memory."""
        self.memory.load_state_dict(state["memory"])
