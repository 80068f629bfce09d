"""Replay memory as a bottom-k sketch: the same content for any number of workers, any order and any resume.

Every row has a key, a hash of the seed and its id. Within a group (task, label) the rows with the smallest keys stay.
Water-filling divides the global capacity among the groups, and the remainder goes to the smallest next keys. The
smallest keys of a union are among the smallest keys of its parts, so sketches of parts merge into the sketch of the
whole.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch

from kcm.learners.base import Batch, joined
from kcm.tasks.hashing import row_key

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
        self.rows = Batch(**tensors, weights=torch.ones(len(self.ids))) if self.ids else None
