"""Scenarios: which rows and labels make which task, in which order tasks arrive, and the configuration of both.

Domain-incremental: the same labels, another kind of text. Class-incremental: new labels with every task, to be
distinguished from all earlier labels. Task-incremental: the task of a row is known when it is answered, so labels may
return (van de Ven and Tolias, arXiv 1904.07734).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StrictInt

from kcm.config import Config
from kcm.errors import ConfigError, DataError
from kcm.tasks.readers.reviews import ReviewsSource
from kcm.tasks.sources import SourceConfig
from kcm.tasks.splits import DEFAULT_FRACTIONS, Fractions, shuffled

Scenario = Literal["domain_incremental", "class_incremental", "task_incremental"]
TaskOrder = Literal["given", "shuffled"]


@dataclass(frozen=True)
class TaskPlan:
    """The tasks in learning order, and the rows of each.

    `labels` are the labels of each task, in the order of the sequence's label list. `numbers` maps a row to its task,
    by label (`by_label`) or by the value in the task column.
    """

    names: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    by_label: bool
    numbers: Mapping[str, int]


def plan_tasks(
    cells: Collection[tuple[str, str]],
    labels: Sequence[str],
    *,
    scenario: Scenario,
    num_tasks: int | None,
    order: TaskOrder,
    seed: int,
) -> TaskPlan:
    """Plan the tasks of rows whose pairs of task value and label are `cells`, in the order of their first rows.

    Tasks come from `num_tasks` (equal shares of labels, drawn by the seed if `order` is shuffled), unless the scenario
    is domain-incremental, or else from the task column. Raises ConfigError if neither applies, and DataError if a class
    is in two tasks of a class-incremental scenario.
    """
    domains = list(dict.fromkeys(domain for domain, _ in cells))
    if num_tasks is not None and scenario != "domain_incremental":
        ordered_labels = shuffled(labels, seed, "classes") if order == "shuffled" else list(labels)
        assignment = _equal_shares(ordered_labels, num_tasks)
        return _plan(cells, labels, assignment, list(dict.fromkeys(assignment.values())), by_label=True)
    _check_task_column(domains, scenario)
    if num_tasks is not None and num_tasks != len(domains):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(domains)} tasks", where="tasks.num_tasks")
    names = shuffled(domains, seed, "tasks") if order == "shuffled" else domains
    plan = _plan(cells, labels, {domain: domain for domain in domains}, names, by_label=False)
    if scenario == "class_incremental":
        _check_disjoint(plan)
    return plan


def natural_scenario(labels: Mapping[str, Collection[str]]) -> Scenario:
    """The scenario of tasks with these labels: class-incremental if no two share a label, domain-incremental if all do.

    Raises DataError if tasks share some labels and not all: then a person has to say what it means.
    """
    sets = {task: set(own) for task, own in labels.items()}
    if sum(map(len, sets.values())) == len(set().union(*sets.values())):
        return "class_incremental"
    if len(set(map(frozenset, sets.values()))) == 1:
        return "domain_incremental"
    every = set().union(*sets.values())
    raise DataError(
        f"the tasks {', '.join(map(repr, labels))} share some of their {len(every):,} labels, but not all",
        where="tasks",
        hint="Add --scenario task_incremental if the task of an input is known, or name a task column with --task",
    )


def _equal_shares(labels: Sequence[str], num_tasks: int) -> dict[str, str]:
    """From label to task; the numbers of labels of two tasks differ by one at most."""
    if num_tasks > len(labels):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(labels)} labels", where="tasks.num_tasks")
    width = len(str(num_tasks))
    return {label: f"task-{position * num_tasks // len(labels) + 1:0{width}d}" for position, label in enumerate(labels)}


def _plan(
    cells: Collection[tuple[str, str]],
    labels: Sequence[str],
    assignment: Mapping[str, str],
    names: Sequence[str],
    *,
    by_label: bool,
) -> TaskPlan:
    """The plan for tasks `names`, given the task of every label or domain."""
    present: dict[str, set[str]] = {name: set() for name in names}
    for domain, label in cells:
        present[assignment[label if by_label else domain]].add(label)
    numbers = {name: number for number, name in enumerate(names)}
    return TaskPlan(
        tuple(names),
        tuple(tuple(label for label in labels if label in present[name]) for name in names),
        by_label,
        {value: numbers[name] for value, name in assignment.items()},
    )


def _check_task_column(names: Sequence[str], scenario: Scenario) -> None:
    if names != [""]:
        return
    ways = "source.task_column" if scenario == "domain_incremental" else "num_tasks or source.task_column"
    raise ConfigError(f"nothing assigns rows to tasks in a {scenario} scenario", where="tasks", hint=f"Set {ways}")


def _check_disjoint(plan: TaskPlan) -> None:
    task_of_class: dict[str, str] = {}
    for name, labels in zip(plan.names, plan.labels, strict=True):
        for label in labels:
            if label in task_of_class:
                raise DataError(
                    f"class {label!r} appears in two tasks, {task_of_class[label]!r} and {name!r}",
                    where="tasks.scenario = class_incremental",
                    hint="Use domain_incremental or task_incremental, or group by num_tasks",
                )
            task_of_class[label] = name


class LongTailConfig(Config):
    """A long tail of train rows: class c of C, from head to tail, keeps n_max * imbalance_factor^(-c/(C-1)) rows."""

    n_max: int | None = Field(
        default=None, ge=1, description="Train rows of the largest class; null: as many as it has."
    )
    imbalance_factor: float = Field(
        default=100.0, ge=1, description="Rows of the largest class over rows of the smallest."
    )


def long_tail_sizes(largest: int, num_classes: int, imbalance_factor: float) -> list[int]:
    """Rows per class from head to tail, at least 1 each (Cui et al., arXiv 1901.05555, section 5.1)."""
    steps = max(num_classes - 1, 1)
    return [max(1, round(largest * imbalance_factor ** (-rank / steps))) for rank in range(num_classes)]


class TasksConfig(Config):
    """The source of the rows, and their division into tasks."""

    source: SourceConfig = Field(default=ReviewsSource(), description="Where the rows come from.")
    scenario: Scenario = Field(default="domain_incremental", description="What changes from task to task.")
    num_tasks: int | None = Field(default=None, ge=1, description="Number of tasks; labels are divided equally.")
    order: TaskOrder = Field(
        default="given", description="Order of tasks and classes: as in the source, or drawn by the seed."
    )
    max_rows_per_task: int | None = Field(
        default=None,
        ge=1,
        description="Cap per task, whole groups, all splits together; unlabelled rows have their own cap of this size.",
    )
    salt: int | None = Field(
        default=None, ge=0, description="Seed that draws the split of each unit; null: the seed of the run."
    )
    fractions: Fractions = Field(
        default=DEFAULT_FRACTIONS,
        description="Shares of train, validate, certify and test; test may be 0. Without fractions, a learner with "
        "left-out scores of its train rows uses 0.65, 0, 0.25 and 0.1.",
    )
    max_bad_rows: Annotated[StrictInt, Field(ge=0)] | Annotated[str, Field(pattern=r"^\d+(\.\d+)?%$")] = Field(
        default="1%", description="Bad rows allowed: a count, or a share such as 1%."
    )
    long_tail: LongTailConfig | None = Field(default=None, description="Cut the train rows to a long tail.")
    out_of_scope: Literal["drop", "keep"] = Field(
        default="drop", description="Whether rows with none of the labels are dropped or kept."
    )
    grows: bool = Field(
        default=False,
        description="Whether tables will be appended. The first look then spends 61% of the certificate's delta, and "
        "the second 15%; otherwise 80% and 12%.",
    )
    unlabelled: Literal["refuse", "keep"] = Field(
        default="refuse",
        description="refuse: rows without a label are bad rows. keep: train rows with the large model's answers.",
    )
