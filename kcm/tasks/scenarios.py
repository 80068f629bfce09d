"""Scenarios: which rows and labels make which task, and in which order tasks arrive.

Domain-incremental: the same labels, another kind of text. Class-incremental: new labels with every task, to be
distinguished from all earlier labels. Task-incremental: the task of a row is known when it is answered, so labels may
return (van de Ven and Tolias, arXiv 1904.07734).
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field

from kcm.config import Config
from kcm.errors import ConfigError, DataError
from kcm.regular_files import require_regular
from kcm.tasks.hashing import shuffled

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
    mapping: Mapping[str, Sequence[str]] | None,
    order: TaskOrder,
    seed: int,
) -> TaskPlan:
    """Plan the tasks of rows whose pairs of task value and label are `cells`, in the order of their first rows.

    Tasks come from `mapping` (task -> labels, or -> values of the task column if domain-incremental), or else from
    `num_tasks` (equal shares of labels, drawn by the seed if `order` is shuffled), or else from the task column. Raises
    ConfigError if none of these applies, and DataError if a class is in two tasks of a class-incremental scenario or a
    label or domain is in no task.
    """
    by_label = scenario != "domain_incremental"
    domains = list(dict.fromkeys(domain for domain, _ in cells))
    if mapping is None and num_tasks is not None and by_label:
        ordered_labels = shuffled(labels, seed, "classes") if order == "shuffled" else list(labels)
        assignment = _equal_shares(ordered_labels, num_tasks)
        return _plan(cells, labels, assignment, list(dict.fromkeys(assignment.values())), by_label)
    if mapping is None or not by_label:
        _check_task_column(domains, scenario)
    if mapping is not None:
        assignment = _invert(mapping, labels if by_label else domains, "label" if by_label else "domain")
        names = list(mapping)
    else:
        assignment, names, by_label = {domain: domain for domain in domains}, domains, False
    if num_tasks is not None and num_tasks != len(names):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(names)} tasks", where="tasks.num_tasks")
    names = shuffled(names, seed, "tasks") if order == "shuffled" else names
    plan = _plan(cells, labels, assignment, names, by_label)
    if scenario == "class_incremental" and not by_label:
        _check_disjoint(plan)
    return plan


def load_mapping(path: str) -> dict[str, list[str]]:
    """Read a mapping from task to its labels (or domains) from a JSON or YAML file."""
    file = Path(path).expanduser()
    require_regular(file)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no such file {path!r}", where="tasks.mapping") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"not a JSON or YAML file: {' '.join(str(error).split())}", where=path) from None
    if not isinstance(content, dict) or not all(isinstance(values, list) and values for values in content.values()):
        raise DataError(
            "expected a mapping from task to a list of labels", where=path, hint='As in {"banking": ["pin_change"]}'
        )
    return {str(task): [str(value) for value in values] for task, values in content.items()}


def _invert(mapping: Mapping[str, Sequence[str]], keys: Iterable[str], kind: str) -> dict[str, str]:
    """From label (or domain) to task, for exactly the labels in `keys`."""
    inverted: dict[str, str] = {}
    for task, values in mapping.items():
        for value in values:
            if value in inverted:
                raise DataError(
                    f"{kind} {value!r} lies in two tasks, {inverted[value]!r} and {task!r}", where="tasks.mapping"
                )
            inverted[value] = task
    expected = set(keys)
    if unassigned := sorted(expected - inverted.keys()):
        raise DataError(f"no task for {kind} {', '.join(map(repr, unassigned[:5]))}", where="tasks.mapping")
    if unexpected := sorted(inverted.keys() - expected):
        nearest = difflib.get_close_matches(unexpected[0], sorted(expected), n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(f"no row has {kind} {unexpected[0]!r}", where="tasks.mapping", hint=hint)
    return inverted


def _equal_shares(labels: Sequence[str], num_tasks: int) -> dict[str, str]:
    """From label to task; the first tasks get one label more if the labels do not divide evenly."""
    if num_tasks > len(labels):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(labels)} labels", where="tasks.num_tasks")
    width = len(str(num_tasks))
    return {label: f"task-{position * num_tasks // len(labels) + 1:0{width}d}" for position, label in enumerate(labels)}


def _plan(
    cells: Collection[tuple[str, str]],
    labels: Sequence[str],
    assignment: Mapping[str, str],
    names: Sequence[str],
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
    ways = "source.task_column" if scenario == "domain_incremental" else "num_tasks, mapping or source.task_column"
    raise ConfigError(f"nothing assigns rows to tasks in a {scenario} scenario", where="tasks", hint=f"Set {ways}")


def _check_disjoint(plan: TaskPlan) -> None:
    task_of_class: dict[str, str] = {}
    for name, labels in zip(plan.names, plan.labels, strict=True):
        for label in labels:
            if label in task_of_class:
                raise DataError(
                    f"class {label!r} appears in two tasks, {task_of_class[label]!r} and {name!r}",
                    where="tasks.scenario = class_incremental",
                    hint="Use domain_incremental or task_incremental, or group by num_tasks or mapping",
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
