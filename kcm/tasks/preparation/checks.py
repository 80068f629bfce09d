"""The needs of every task, checked by counts before any work starts.

A draw by hash can leave a split of a small task empty, or with a single class. No row is moved to repair that: another
salt draws all units again, and more rows help.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

from kcm.errors import DataError
from kcm.inputs.visible import shown
from kcm.tasks.scenarios import Scenario, TaskPlan
from kcm.tasks.splits import NOT_GIVEN, SPLITS, Split

Cell = tuple[int, int, int]  # task, split, label
_LIKELY = 0.9  # probability with which the additional rows must suffice


class SplitError(DataError):
    """A split without the rows it needs; another salt may repair it if `is_drawn`."""

    is_drawn = False


def check_labels(labels: Sequence[str], present: Collection[str], where: str) -> None:
    """Raise DataError if there are fewer than two classes, or if a label of the label list has no row."""
    if absent := [label for label in labels if label not in present]:
        raise DataError(
            f"label {absent[0]!r} is in the label list but has no row", where=where, hint="Remove it from source.labels"
        )
    if odd := [label for label in labels if shown(label) != label]:
        raise DataError(f"a label is no visible line: {odd[0]!r}", where=where, hint="Rename it in the table")
    if len(labels) < 2:
        raise DataError(f"there is only one class, {', '.join(map(repr, labels)) or 'none'}", where=where)


def check_splits(
    plan: TaskPlan,
    cells: Collection[Cell],
    labels: Sequence[str],
    scenario: Scenario,
    fractions: Mapping[Split, float],
    origins: Collection[int],
) -> None:
    """Raise SplitError for the first split without rows, with one class, or without train rows of a class.

    `cells` are those with rows; `origins` are the given splits that occur. A task with one class by design (class- and
    task-incremental) needs no second class in a split. A split whose fraction is 0 may be empty; test rows must be in
    all tasks or in none, because all are measured together.
    """
    present_cells = set(cells)
    numbers = {label: number for number, label in enumerate(labels)}
    for task, (name, task_labels) in enumerate(zip(plan.names, plan.labels, strict=True)):
        several = len(task_labels) > 1 or scenario == "domain_incremental"
        for place, split in enumerate(SPLITS):
            present_labels = [label for label in task_labels if (task, place, numbers[label]) in present_cells]
            may_lack = not fractions[split] and (
                split != "test" or not any(cell_split == place for _, cell_split, _ in present_cells)
            )
            if not present_labels and may_lack:
                continue
            if not present_labels:
                fault, label = f"task {name!r} has no {split} rows", None
            elif several and len(present_labels) == 1:
                fault, label = f"all {split} rows of task {name!r} are of one class, {present_labels[0]!r}", None
            elif split == "train" and (missing := [label for label in task_labels if label not in present_labels]):
                fault, label = f"class {missing[0]!r} of task {name!r} has no train rows", missing[0]
            else:
                continue
            raise _split_error(fault, split, label, origins, fractions)


def _split_error(
    fault: str, split: Split, label: str | None, origins: Collection[int], fractions: Mapping[Split, float]
) -> SplitError:
    """The error for missing rows of a split, of one label or of any, with the number of additional rows."""
    subject = f"class {label!r}" if label else "every class"
    if NOT_GIVEN not in origins and SPLITS.index(split) in origins:
        return SplitError(fault, where="tasks", hint=f"Add {split} rows of {subject}")
    num_rows = math.ceil(math.log(1 - _LIKELY) / math.log(1 - fractions[split]))
    hint = (
        f"Add about {num_rows} rows of {subject} (rows of one content or group count as one), raise max_rows_per_task,"
        " or try another tasks.salt"
    )
    error = SplitError(fault, where="tasks", hint=hint)
    error.is_drawn = True
    return error
