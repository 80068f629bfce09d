"""The tasks that a sequence has already, as far as the rows of its next tasks must know them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pyarrow as pa

from kcm.errors import DataError
from kcm.tasks.scenarios import Scenario, TaskOrder, TaskPlan, plan_tasks


@dataclass(frozen=True)
class EarlierTasks:
    """The sequence that grows: its description, the ids of its rows, and the digests of its contents and groups.

    `ids` are tables with the column id. `units` are tables with the columns kind (content or group) and digest, see
    `FactsDatabase.write_units`. `identity` stands for all rows.
    """

    description: Mapping[str, Any]
    ids: Iterable[pa.Table]
    units: Iterable[pa.Table]
    identity: str

    @property
    def labels(self) -> tuple[str, ...]:
        """The label list so far."""
        return tuple(self.description["label_names"])

    @property
    def tasks(self) -> tuple[str, ...]:
        """The names of the tasks so far."""
        return tuple(task["name"] for task in self.description["tasks"])

    @property
    def splits_given(self) -> bool:
        """Whether some rows came with a split of their own."""
        return bool(self.description["splits_given"])

    def described(self, more: Mapping[str, Any]) -> dict[str, Any]:
        """The description of the grown sequence; `more` describes its new tasks, in the same form."""
        before = self.description
        summary = {name: _sum(count, more["summary"][name]) for name, count in before["summary"].items()}
        return {
            **before,
            "label_names": more["label_names"],
            "none_label": before["none_label"] or more["none_label"],
            "splits_given": self.splits_given or more["splits_given"],
            "tasks": [*before["tasks"], *more["tasks"]],
            "summary": summary,
        }


def _sum(first: Any, second: Any) -> Any:
    """The sum of two counts, or of two tables of counts by name."""
    if not isinstance(first, dict):
        return first + second
    common = {name: _sum(first[name], second[name]) for name in first if name in second}
    return first | second | common


class KnownRowsError(DataError):
    """Every row is in the sequence already."""


def plan_next_tasks(
    cells: Collection[tuple[str, str]],
    labels: Sequence[str],
    *,
    name: str,
    earlier: EarlierTasks,
    scenario: Scenario,
    num_tasks: int | None,
    order: TaskOrder,
    seed: int,
) -> TaskPlan:
    """The plan of the tasks that a table adds: one called `name`, or one per value of the task column.

    Arguments as of `plan_tasks`. DataError for the name of an earlier task. DataError for a class of an earlier task in
    a class-incremental scenario with several tasks: the second table decides how a single one goes on.
    """
    domains = list(dict.fromkeys(domain for domain, _ in cells))
    if domains == [""] or num_tasks is not None:  # tasks by label: a table is one task
        cells, domains = [(name, label) for _, label in cells], [""] if domains == [""] else domains
        present = {label for _, label in cells}
        plan = TaskPlan(
            (name,), (tuple(label for label in labels if label in present),), False, dict.fromkeys(domains, 0)
        )
    else:
        plan = plan_tasks(cells, labels, scenario=scenario, num_tasks=None, order=order, seed=seed)
    if same := [task for task in plan.names if task in earlier.tasks]:
        raise DataError(
            f"the sequence has a task {same[0]!r} already",
            where="--append",
            hint="Give the file, or the values of its task column, another name",
        )
    taught = [label for task in earlier.description["tasks"] for label in task["label_names"]]
    class_by_class = scenario == "class_incremental" and len(earlier.tasks) > 1 and len({*taught}) == len(taught)
    if class_by_class and (same := [label for label in chain(*plan.labels) if label in taught]):
        raise DataError(
            f"class {same[0]!r} is in an earlier task",
            where="tasks.scenario = class_incremental",
            hint="Use domain_incremental or task_incremental from the first run on, or append rows of new classes only",
        )
    return plan
