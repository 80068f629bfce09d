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
from kcm.learners.base import Batch, Classes, Learner, LearnerConfig, joined
from kcm.tasks.splits import row_key

_KEPT = ("features", "labels", "large_probabilities", "logits")  # fields of the rows in a saved state


def select(keys: Sequence[int], groups: Sequence[tuple[int, int]], capacity: int) -> list[int]:
    """Positions that a memory of `capacity` keeps among rows with these keys and groups, in key order.

    Water-filling: the largest level q with sum_g min(n_g, q) <= capacity; the remainder goes to the groups whose
    next key is smallest.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for position in sorted(range(len(keys)), key=lambda i: keys[i]):
        members.setdefault(groups[position], []).append(position)
    level = _water_level([len(rows) for rows in members.values()], capacity)
    chosen_rows = [position for rows in members.values() for position in rows[:level]]
    nexts = sorted((rows[level] for rows in members.values() if len(rows) > level), key=lambda i: keys[i])
    chosen_rows += nexts[: capacity - len(chosen_rows)]
    return sorted(chosen_rows, key=lambda i: keys[i])


def _water_level(sizes: Sequence[int], capacity: int) -> int:
    level, room, remaining = 0, capacity, sorted(sizes)
    while remaining and room >= len(remaining):
        rise = min(remaining[0] - level, room // len(remaining))
        level, room = level + rise, room - rise * len(remaining)
        if level < remaining[0]:
            break
        remaining = [size for size in remaining if size > level]
    return level


class Memory:
    """At most `capacity` rows of the tasks so far, chosen by key and stored in the order of their keys.

    A bottom-k sketch: the same content for any number of workers, any order and any resume. Every row has a key, a hash
    of the seed and its id. Within a group (task, label) the rows with the smallest keys stay, because the smallest keys
    of a union are among the smallest keys of its parts.
    `ids` and `tasks` belong to the `rows`; a group is a task and a label. `rows` is None while the memory is empty.
    """

    def __init__(self, capacity: int, seed: int) -> None:
        self.capacity, self.seed = capacity, seed
        self.ids: list[str] = []
        self.tasks: list[int] = []
        self.rows: Batch | None = None

    def __len__(self) -> int:
        return len(self.ids)

    def chosen(self, ids: Sequence[str], tasks: Sequence[int], labels: Sequence[int]) -> list[int]:
        """Positions of the offered rows that an empty memory would keep, by key."""
        keys = [row_key(self.seed, row_id) for row_id in ids]
        return select(keys, list(zip(tasks, labels, strict=True)), self.capacity)

    def add(self, ids: Sequence[str], tasks: Sequence[int], rows: Batch) -> None:
        """Offer rows; those with the smallest keys of their group stay. Offering a row twice changes nothing."""
        rows = rows if self.rows is None else joined([self.rows, rows])
        self.ids, self.tasks = [*self.ids, *ids], [*self.tasks, *tasks]
        self._keep(list({row_id: position for position, row_id in enumerate(self.ids)}.values()), rows)
        assert self.rows is not None
        self._keep(self.chosen(self.ids, self.tasks, self.rows.labels.tolist()), self.rows)

    def remove(self, ids: Collection[str]) -> None:
        """Drop the rows with these ids."""
        if self.rows is not None:
            self._keep([position for position, row_id in enumerate(self.ids) if row_id not in ids], self.rows)

    def grow(self, num_labels: int) -> None:
        """Extend the rows to later labels: probability 0 from the large model, no logits from the networks."""
        self.rows = self.rows and self.rows.widened(num_labels)

    def _keep(self, positions: list[int], rows: Batch) -> None:
        self.ids, self.tasks = (
            [self.ids[position] for position in positions],
            [self.tasks[position] for position in positions],
        )
        self.rows = rows.take(torch.tensor(positions, dtype=torch.int64), torch.ones(len(positions)))

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain lists, loadable with `weights_only=True`."""
        state: dict[str, Any] = {"ids": self.ids, "tasks": self.tasks}
        if self.rows is not None and self.ids:
            state |= {name: tensor for name in _KEPT if (tensor := getattr(self.rows, name)) is not None}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the state from `state_dict`."""
        self.ids, self.tasks = list(state["ids"]), list(state["tasks"])
        tensors = {name: state[name] for name in _KEPT if name in state}
        self.rows = Batch(**tensors, weights=tensors["features"].new_ones(len(self.ids))) if self.ids else None


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
            stream_N1 = (torch.arange(len(labels_N), device=labels_N.device) < num_stream)[:, None]
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
