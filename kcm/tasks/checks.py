"""Checks of every task, before any work starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.errors import DataError
from kcm.tasks.rows import Row
from kcm.tasks.scenarios import RowGroup, Scenario
from kcm.tasks.splits import SPLITS, Split

_MEND = "Add rows, raise max_rows_per_task, or change the fractions"


def check_labels(labels: Sequence[str], rows: Sequence[Row], where: str) -> None:
    """Raise DataError when there are fewer than two classes, or one of the label list has no row."""
    present = {row.label for row in rows}
    if absent := [label for label in labels if label not in present]:
        raise DataError(
            f"label {absent[0]!r} of the label list has no row", where=where, mend="Remove it from source.labels"
        )
    if len(labels) < 2:
        raise DataError(f"there is only one class, {', '.join(map(repr, labels)) or 'none'}", where=where)


def check_size(group: RowGroup) -> None:
    """Raise DataError when a task has fewer rows than classes."""
    if len(group.rows) < max(len(group.labels), len(SPLITS)):
        raise DataError(
            f"task {group.name!r} has {len(group.rows)} rows for {len(group.labels)} classes and {len(SPLITS)} splits",
            where="tasks",
            mend=_MEND,
        )


def check_splits(group: RowGroup, splits: Mapping[Split, Sequence[Row]], scenario: Scenario) -> None:
    """Raise DataError for a split without rows, a split of one class, or a class without train rows.

    A task that has one class by design, as class- and task-incremental ones may, cannot have more in a split.
    """
    several = len(group.labels) > 1 or scenario == "domain_incremental"
    for split in SPLITS:
        labels = {row.label for row in splits[split] if row.label}
        if not labels:
            raise DataError(f"task {group.name!r} has no {split} rows", where="tasks", mend=_MEND)
        if several and len(labels) == 1:
            raise DataError(
                f"all {split} rows of task {group.name!r} are of one class, {min(labels)!r}", where="tasks", mend=_MEND
            )
    trained = {row.label for row in splits["train"]}
    if untrained := [label for label in group.labels if label not in trained]:
        raise DataError(f"class {untrained[0]!r} of task {group.name!r} has no train rows", where="tasks", mend=_MEND)
