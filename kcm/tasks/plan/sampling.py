"""The long tail: how many train rows each class keeps."""

from __future__ import annotations

from pydantic import Field

from kcm.config import Config


class LongTailConfig(Config):
    """A long tail of train rows: class c of C, from head to tail, keeps n_max * imbalance_factor^(-c/(C-1)) rows."""

    n_max: int | None = Field(
        default=None, ge=1, description="Train rows of the largest class; null: as many as the largest has."
    )
    imbalance_factor: float = Field(
        default=100.0, ge=1, description="Rows of the largest class over rows of the smallest."
    )


def long_tail_sizes(largest: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Rows per class from head to tail, at least 1 each (Cui et al., arXiv 1901.05555, section 5.1)."""
    steps = max(num_classes - 1, 1)
    return [max(1, round(largest * imbalance_factor ** (-rank / steps))) for rank in range(num_classes)]
