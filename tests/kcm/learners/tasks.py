"""Tasks made of other tasks, and all rows of some tasks."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from kcm.learners.base import Batch, joined
from kcm.learners.training.stream import TensorRows

Rows = tuple[list[str], Batch]  # with their ids


def task_of(name: str, train: Rows, test: Rows) -> TensorRows:
    return TensorRows(name, {"train": train, "test": test})


def rows_of(tasks: Sequence[TensorRows], split: str) -> Batch:
    return joined(task.take(split, torch.arange(task.num_rows(split))) for task in tasks)


def merged(tasks: Sequence[TensorRows]) -> TensorRows:
    """All rows of some tasks as one."""

    def both(split: str) -> Rows:
        return [row_id for task in tasks for row_id in task.ids(split)], rows_of(tasks, split)

    return task_of("all", both("train"), both("test"))


def changed(task: TensorRows, change: Callable[[str, Batch], Batch]) -> TensorRows:
    """The task with other rows under the same ids; `change` is given the split and its rows."""
    train, test = ((task.ids(split), change(split, rows_of([task], split))) for split in ("train", "test"))
    return task_of(task.name, train, test)


def part_of(task: TensorRows, name: str, train: Sequence[int] | Tensor, num_test: int | None = None) -> TensorRows:
    """The task with its train rows at some positions, and its first test rows, or all of them."""

    def chosen(split: str, positions: Tensor) -> Rows:
        return [task.ids(split)[position] for position in positions], task.take(split, positions)

    num_test = task.num_rows("test") if num_test is None else num_test
    return task_of(name, chosen("train", torch.as_tensor(train)), chosen("test", torch.arange(num_test)))
