"""Fewer rows than there are: a cap per task, and the long tail cut from the train rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import Field

from kcm.config import Config
from kcm.errors import DataError
from kcm.tasks.hashing import draw, shuffled
from kcm.tasks.rows import Row
from kcm.tasks.units import find_units


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


def cap_rows(rows: Sequence[Row], limit: int, seed: int, *, task: str) -> list[Row]:
    """At most `limit` rows, whole units only, in their old order; a smaller limit gives a subset of a larger one.

    Raises DataError when not even the first unit fits.
    """
    if len(rows) <= limit:
        return list(rows)
    units = find_units(rows, range(len(rows)))
    kept: set[int] = set()
    for unit in sorted(units, key=lambda unit: draw(seed, "cap", unit.name)):
        if len(kept) + len(unit.positions) > limit:
            break
        kept.update(unit.positions)
    if not kept:
        raise DataError(
            f"max_rows_per_task = {limit} is less than the rows of one group of task {task!r}",
            where="tasks.max_rows_per_task",
            mend="Raise it",
        )
    return [row for position, row in enumerate(rows) if position in kept]


def head_to_tail(stream: Sequence[str], config: LongTailConfig, seed: int) -> tuple[str, ...]:
    """Labels from the largest class to the smallest, given the order in which they are learned."""
    if config.order == "shuffled":
        return tuple(shuffled(stream, seed, "long tail"))
    return tuple(stream if config.order == "head_first" else reversed(stream))


def long_tail_sizes(largest: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Rows per class from head to tail, at least 1 each (Cui et al., arXiv 1901.05555, section 5.1)."""
    steps = max(num_classes - 1, 1)
    return [max(1, round(largest * imbalance_factor ** (-rank / steps))) for rank in range(num_classes)]


def cut_tail(rows: Sequence[Row], sizes: Mapping[str, int], seed: int) -> list[Row]:
    """At most `sizes[label]` rows of each label, in their old order; a class smaller than its size stays as it is."""
    ordered = sorted(rows, key=lambda row: draw(seed, "long tail", row.id))
    left = dict(sizes)
    kept: set[str] = set()
    for row in ordered:
        if left[row.label] > 0:
            left[row.label] -= 1
            kept.add(row.id)
    return [row for row in rows if row.id in kept]
