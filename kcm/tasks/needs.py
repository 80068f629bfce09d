"""Moving units between drawn splits until each split of each task has what it needs.

A draw by hash can leave a small task's split empty, or with a single class. Train needs every class of the task, any
other split two of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Generic, TypeVar

from kcm.tasks.rows import Row
from kcm.tasks.units import Unit

SplitT = TypeVar("SplitT", bound=str)
_Cell = tuple[str, str]  # task, label


class Draft(Generic[SplitT]):
    """A first assignment of units to splits, open to amendment.

    `units` come in the order in which they may move. Rows without a label (out of scope) are not counted.
    """

    def __init__(
        self, units: Sequence[Unit], splits: Sequence[SplitT], rows: Sequence[Row], tasks: Sequence[str]
    ) -> None:
        self.splits = list(splits)
        self._cells = [Counter((tasks[i], rows[i].label) for i in unit.positions if rows[i].label) for unit in units]
        self._counts: dict[SplitT, Counter[_Cell]] = defaultdict(Counter)
        self._units_of: dict[_Cell, list[int]] = defaultdict(list)
        for number, cells in enumerate(self._cells):
            self._counts[self.splits[number]].update(cells)
            for cell in cells:
                self._units_of[cell].append(number)

    def fill_train(self, train: SplitT) -> None:
        """Move the first unit of every class that train lacks there."""
        for cell, members in self._units_of.items():
            if not self._counts[train][cell]:
                self._move(members[0], train)

    def fill_other(self, split: SplitT, donors: Sequence[SplitT]) -> None:
        """Move units from `donors` until the split has two classes of each task, or its only one.

        A donor gives nothing that would leave it without a class.
        """
        labels: dict[str, list[_Cell]] = defaultdict(list)
        for cell in self._units_of:
            labels[cell[0]].append(cell)
        for cells in labels.values():
            for cell in cells:
                held = [other for other in cells if self._counts[split][other]]
                if len(held) >= min(2, len(cells)):
                    break
                if cell not in held:
                    self._take(cell, split, donors)

    def _take(self, cell: _Cell, split: SplitT, donors: Sequence[SplitT]) -> None:
        for donor in donors:
            for number in self._units_of[cell]:
                if self.splits[number] == donor and self._can_spare(number, donor):
                    self._move(number, split)
                    return

    def _can_spare(self, number: int, donor: SplitT) -> bool:
        return all(self._counts[donor][cell] > count for cell, count in self._cells[number].items())

    def _move(self, number: int, split: SplitT) -> None:
        self._counts[self.splits[number]].subtract(self._cells[number])
        self._counts[split].update(self._cells[number])
        self.splits[number] = split
