"""Experience replay: every batch is joined by remembered rows (Chaudhry et al., arXiv 1902.10486).

Learners with a memory may use the asymmetric cross-entropy of ER-ACE (Caccia et al., arXiv 2104.05025) as label loss:
new rows no longer push the logits of old labels down, and only remembered rows have a loss over all labels.

    row of the stream    CE over its task's labels, and over old labels with logits lowered by `margin`
    remembered row       CE over all labels seen so far

In the paper, stream rows see only their task's labels, which is an infinite `margin`; 0 is plain replay without unseen
labels. In the first task, or if no label is old, the loss is the plain one. Keep the margin finite: the paper's memory
holds rows of the current task, which push old labels down. This memory holds only rows of finished tasks, so with an
infinite margin nothing would.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator
from kcm.errors import ConfigError
from kcm.learners.base import Batch, Classes, Learner, LearnerConfig
from kcm.learners.memory import Memory


class MemoryConfig(LearnerConfig):
    """Settings common to all learners with a memory."""

    memory: int = Field(
        400, ge=0, description="Rows remembered over all tasks: at least one per label, or 0 for none at all."
    )
    batch_size: int = Field(32, ge=1, description="Remembered rows per step, for each purpose.")
    margin: float | None = Field(
        None,
        ge=0,
        description="Asymmetric cross-entropy: rows of the stream see the logits of old labels lowered by this much."
        " null: plain cross-entropy.",
    )


class ReplayConfig(MemoryConfig):
    """Experience replay from a memory of fixed capacity."""

    def build(self, seed: int) -> Learner:
        """A fresh learner with an empty memory."""
        return Replay(self, seed)


class Replay(Learner):
    """Joins rows of a memory to every step, in seeded passes over the memory.

    With a `margin` the cross-entropy is asymmetric.
    """

    def __init__(self, config: MemoryConfig, seed: int) -> None:
        self.memory = Memory(config.memory, seed)
        self.batch_size, self.seed, self.margin = config.batch_size, seed, config.margin

    def check(self, num_labels: int) -> None:
        """Raise ConfigError for a memory without room for a row of every label."""
        if 0 < self.memory.capacity < num_labels:
            raise ConfigError(
                f"memory = {self.memory.capacity} is smaller than the number of labels, {num_labels}",
                where="learner.memory",
                hint=f"Give at least {num_labels}, or 0 to remember nothing",
            )

    def grow(self, collaborator: Collaborator) -> None:
        """Extend remembered rows to the current number of labels."""
        self.memory.grow(collaborator.num_labels)

    def extra_rows(self, step: int, num_rows: int) -> Batch | None:
        """Rows from the memory; each counts as much as a row of the stream."""
        return self.draw(step) if len(self.memory) else None

    def label_loss(self, logits_NC: Tensor, labels_N: Tensor, num_stream: int, classes: Classes) -> Tensor:
        """The cross-entropy, asymmetric if there is a margin and some label is old."""
        if self.margin is not None and classes.old_C.any():
            stream_N1 = (torch.arange(len(labels_N)) < num_stream)[:, None]
            logits_NC = (logits_NC - self.margin * (stream_N1 & classes.old_C)).masked_fill(~classes.seen_C, UNSEEN)
        return super().label_loss(logits_NC, labels_N, num_stream, classes)

    def draw(self, number: int) -> Batch:
        """Slice `number` of an endless sequence of seeded permutations of the memory, which must not be empty."""
        count, rows = len(self.memory), self.memory.rows
        assert rows is not None
        size = min(self.batch_size, count)
        passes = range(number * size // count, ((number + 1) * size - 1) // count + 1)
        index = torch.cat([self._pass(pass_number, count) for pass_number in passes])
        start = number * size % count
        return rows.take(index[start : start + size], torch.ones(size))

    def _pass(self, number: int, count: int) -> Tensor:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + number)
        return torch.randperm(count, generator=generator)

    def remembers(self) -> bool:
        """Whether the memory has any capacity; without it, replay equals finetuning."""
        return self.memory.capacity > 0

    def candidates(self, ids: list[str], labels: list[int], task: int) -> list[int]:
        """The task's own sketch: no other row of it can enter the memory."""
        return self.memory.chosen(ids, [task] * len(ids), labels)

    def remember(self, ids: Sequence[str], rows: Batch, task: int) -> None:
        """Merge the finished task's rows into the memory."""
        self.memory.add(ids, [task] * len(ids), rows)

    def forget(self, ids: Collection[str]) -> None:
        """Remembered rows with these ids leave the memory; later tasks take their place."""
        self.memory.remove(ids)

    def state_dict(self) -> dict[str, Any]:
        """The memory."""
        return {"memory": self.memory.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the memory."""
        self.memory.load_state_dict(state["memory"])
