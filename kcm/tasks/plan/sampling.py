"""The long tail: how many train rows each class keeps, and which classes are large."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from kcm.config import Config
from kcm.tasks.hashing import shuffled


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


def head_to_tail(stream: Sequence[str], config: LongTailConfig, seed: int) -> tuple[str, ...]:
    """Labels from the largest class to the smallest, given the order in which they are learned."""
    if config.order == "shuffled":
        return tuple(shuffled(stream, seed, "long tail"))
    return tuple(stream if config.order == "head_first" else reversed(stream))


def long_tail_sizes(largest: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Rows per class from head to tail, at least 1 each (Cui et al., arXiv 1901.05555, section 5.1)."""
    steps = max(num_classes - 1, 1)
    return [max(1, round(largest * imbalance_factor ** (-rank / steps))) for rank in range(num_classes)]
