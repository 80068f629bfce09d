"""Replay memory as a bottom-k sketch: the same content for any number of workers, any order and any resume.

Every row has a key, a hash of the seed and its id. Within a group (task, label) the smallest keys stay; the global
capacity is shared out by water-filling, and what is left over goes to the smallest next keys. Because the smallest
keys of a union lie among the smallest keys of its parts, sketches of parts merge into the sketch of the whole.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kcm.tasks.hashing import row_key


@dataclass(frozen=True)
class MemoryRow:
    """One remembered row: its raw id, its group, its features and what the large model said of it."""

    key: int
    id: str
    task: int
    label: int
    features: np.ndarray  # float32 [D]
    large_probabilities: np.ndarray  # float32 [C], NaN where there is no answer
    logits: np.ndarray | None = None  # float32 [M, C] of the M networks when the task was learned, where they are kept

    @property
    def group(self) -> tuple[int, int]:
        """(task, label): the unit of the quotas."""
        return self.task, self.label

    def widened(self, num_labels: int) -> MemoryRow:
        """The same row where there are more labels."""
        missing, large = num_labels - len(self.large_probabilities), self.large_probabilities
        more = np.full(missing, 0.0 if np.isfinite(large).all() else np.nan, dtype=large.dtype)
        logits = self.logits
        if logits is not None:
            logits = np.pad(logits, ((0, 0), (0, missing)), constant_values=np.nan)
        return replace(self, large_probabilities=np.concatenate([large, more]), logits=logits)


def select(keys: Sequence[int], groups: Sequence[tuple[int, int]], capacity: int) -> list[int]:
    """Positions that a memory of `capacity` keeps among rows with these keys and groups, in key order.

    Water-filling: the largest level q with sum_g min(n_g, q) <= capacity; the remainder goes to the groups whose
    next key is smallest.
    """
    members: dict[tuple[int, int], list[int]] = {}
    for position in sorted(range(len(keys)), key=lambda i: keys[i]):
        members.setdefault(groups[position], []).append(position)
    level = _water_level([len(rows) for rows in members.values()], capacity)
    kept = [position for rows in members.values() for position in rows[:level]]
    nexts = sorted((rows[level] for rows in members.values() if len(rows) > level), key=lambda i: keys[i])
    kept += nexts[: capacity - len(kept)]
    return sorted(kept, key=lambda i: keys[i])


def _water_level(sizes: Sequence[int], capacity: int) -> int:
    level, left, remaining = 0, capacity, sorted(sizes)
    while remaining and left >= len(remaining):
        rise = min(remaining[0] - level, left // len(remaining))
        level, left = level + rise, left - rise * len(remaining)
        if level < remaining[0]:
            break
        remaining = [size for size in remaining if size > level]
    return level


class Memory:
    """At most `capacity` rows of the tasks so far, chosen by key."""

    def __init__(self, capacity: int, seed: int, rows: Iterable[MemoryRow] = ()) -> None:
        self.capacity, self.seed = capacity, seed
        self.rows: list[MemoryRow] = []
        self._tensors: dict[str, Tensor] | None = None
        self.add(rows)

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, rows: Iterable[MemoryRow]) -> None:
        """Offer rows; those with the smallest keys of their group stay. Offering a row twice changes nothing."""
        unique = {row.id: row for row in (*self.rows, *rows)}
        candidates = list(unique.values())
        kept = select([row.key for row in candidates], [row.group for row in candidates], self.capacity)
        self.rows, self._tensors = [candidates[position] for position in kept], None

    def remove(self, ids: Collection[str]) -> None:
        """Drop the rows with these ids."""
        self.rows, self._tensors = [row for row in self.rows if row.id not in ids], None

    def grow(self, num_labels: int) -> None:
        """Make room for labels that come later: the large model gave them 0, the networks nothing."""
        if any(len(row.large_probabilities) != num_labels for row in self.rows):
            self.rows, self._tensors = [row.widened(num_labels) for row in self.rows], None

    def tensors(self) -> dict[str, Tensor]:
        """Of the remembered rows, in key order: features [R, D], labels [R], large_probabilities [R, C].

        And logits [R, M, C] where they are kept. The memory must not be empty.
        """
        if self._tensors is None:
            self._tensors = {
                "features": torch.from_numpy(np.stack([row.features for row in self.rows])),
                "labels": torch.tensor([row.label for row in self.rows]),
                "large_probabilities": torch.from_numpy(np.stack([row.large_probabilities for row in self.rows])),
            }
            if logits := [row.logits for row in self.rows if row.logits is not None]:
                self._tensors["logits"] = torch.from_numpy(np.stack(logits))
        return self._tensors

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain lists, loadable with `weights_only=True`."""
        names = {"ids": [row.id for row in self.rows], "tasks": [row.task for row in self.rows]}
        return names | self.tensors() if self.rows else names

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; keys are recomputed from the ids."""
        ids, tasks = state["ids"], state["tasks"]
        self.rows, self._tensors = [], None
        if not ids:
            return
        features, labels, large = (state[name] for name in ("features", "labels", "large_probabilities"))
        logits = state["logits"].numpy() if "logits" in state else [None] * len(ids)
        self.rows = [
            MemoryRow(row_key(self.seed, row_id), row_id, int(task), int(label), vector, probabilities, logit)
            for row_id, task, label, vector, probabilities, logit in zip(
                ids, tasks, labels.tolist(), features.numpy(), large.numpy(), logits, strict=True
            )
        ]
