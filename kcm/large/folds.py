"""Folds of cross-validation that keep groups whole and balance classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from kcm.tasks.hashing import draw


def assign_folds(labels_N: np.ndarray, groups_N: Sequence[str], num_folds: int, seed: int) -> np.ndarray:
    """The fold of every row, int [N]: groups are dealt out in turn, ordered by their smallest label and then by draw.

    There are at most as many folds as groups.
    """
    smallest: dict[str, int] = {}
    for label, group in zip(labels_N.tolist(), groups_N, strict=True):
        smallest[group] = min(label, smallest.get(group, label))
    ordered = sorted(smallest, key=lambda group: (smallest[group], draw(seed, "fold", group)))
    folds = {group: position % num_folds for position, group in enumerate(ordered)}
    return np.array([folds[group] for group in groups_N])
