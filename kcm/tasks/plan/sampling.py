"""Fewer rows than there are: a cap per task, and the long tail cut from the train rows.

Rows are kept by a rank that is drawn by their name (the unit's for a cap, the row's own for the tail): those below a
threshold. A smaller limit keeps a subset of a larger one. N rows, U ranks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.config import Config
from kcm.tasks.hashing import shuffled

Ranked = NDArray[np.void]


class LongTailConfig(Config):
    """A long tail of train rows: class c of C, from head to tail, keeps n_max * imbalance_factor^(-c/(C-1)) rows."""

    n_max: int | None = Field(
        default=None, ge=1, description="Train rows of the largest class; null: as many as the largest has."
    )
    imbalance_factor: float = Field(
        default=100.0, ge=1, description="Rows of the largest class over rows of the smallest."
    )
    order: Literal["shuffled", "head_first", "tail_first"] = Field(
        default="shuffled", description="Whether the classes learned first are large, small, or either by the seed."
    )


RANKED = np.dtype([("rank", "<f8"), ("rows", "<i8")])  # units, or rows, in the order in which they are kept


def first_ranks(rank_N: NDArray[np.float64], limit: int) -> Ranked:
    """Ranks with the number of rows that have them, the smallest ones first, until they have more than `limit` rows."""
    rank_U, size_U = np.unique(rank_N, return_counts=True)
    found = np.empty(len(rank_U), RANKED)
    found["rank"], found["rows"] = rank_U, size_U
    return _cut(found, limit)


def join_ranks(some: Ranked, more: Ranked, limit: int) -> Ranked:
    """The `first_ranks` of two lots of rows together."""
    both = np.concatenate([some, more])
    rank_U, place = np.unique(both["rank"], return_inverse=True)
    found = np.zeros(len(rank_U), RANKED)
    found["rank"] = rank_U
    np.add.at(found["rows"], place, both["rows"])
    return _cut(found, limit)


def threshold(ranked: Ranked, limit: int) -> float:
    """The rank below which there are at most `limit` rows, whole units only; infinite where all of them fit."""
    over = np.flatnonzero(np.cumsum(ranked["rows"]) > limit)
    return float(ranked["rank"][over[0]]) if len(over) else np.inf


def _cut(ranked: Ranked, limit: int) -> Ranked:
    """Leave out what cannot be kept, but for the first rank that does not fit."""
    over = np.flatnonzero(np.cumsum(ranked["rows"]) > limit)
    return ranked[: over[0] + 1] if len(over) else ranked


def head_to_tail(stream: Sequence[str], config: LongTailConfig, seed: int) -> tuple[str, ...]:
    """Labels from the largest class to the smallest, given the order in which they are learned."""
    if config.order == "shuffled":
        return tuple(shuffled(stream, seed, "long tail"))
    return tuple(stream if config.order == "head_first" else reversed(stream))


def long_tail_sizes(largest: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Rows per class from head to tail, at least 1 each (Cui et al., arXiv 1901.05555, section 5.1)."""
    steps = max(num_classes - 1, 1)
    return [max(1, round(largest * imbalance_factor ** (-rank / steps))) for rank in range(num_classes)]
