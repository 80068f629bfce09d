"""Scenarios: which rows and labels make which task, and in which order tasks come.

Domain-incremental: the same labels, another kind of text. Class-incremental: new labels with every task, told apart
from all earlier ones. Task-incremental: the task of a row is known when it is answered, so that labels may return
(van de Ven and Tolias, arXiv 1904.07734).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from kcm.errors import ConfigError, DataError
from kcm.tasks.hashing import draw, shuffled
from kcm.tasks.rows import Row

Scenario = Literal["domain_incremental", "class_incremental", "task_incremental"]
TaskOrder = Literal["given", "shuffled"]


@dataclass(frozen=True)
class RowGroup:
    """The rows of one task before they are split, and its labels in the order of the sequence's label list."""

    name: str
    labels: tuple[str, ...]
    rows: tuple[Row, ...]


def group_rows(
    rows: Sequence[Row],
    labels: Sequence[str],
    *,
    scenario: Scenario,
    num_tasks: int | None,
    mapping: Mapping[str, Sequence[str]] | None,
    order: TaskOrder,
    seed: int,
) -> list[RowGroup]:
    """Group rows into tasks, in the order in which they are learned.

    Tasks come from `mapping` (task -> labels, or -> values of the task column when domain-incremental), else from
    `num_tasks` (labels in equal shares, drawn by the seed when `order` is shuffled), else from the task column.
    Raises ConfigError when none of them applies, DataError when a class lies in two tasks of a class-incremental
    scenario or a label or domain is left over.
    """
    by_label = scenario != "domain_incremental"
    if mapping is not None:
        keys = labels if by_label else list(dict.fromkeys(row.task for row in rows))
        if not by_label:
            _check_task_column(keys, scenario)
        assignment = _inverted(mapping, keys, "label" if by_label else "domain")
        groups = _group(rows, labels, [assignment[row.label if by_label else row.task] for row in rows], list(mapping))
    elif num_tasks is not None and by_label:
        ordered = shuffled(labels, seed, "classes") if order == "shuffled" else list(labels)
        assignment = _equal_shares(ordered, num_tasks)
        names = list(dict.fromkeys(assignment.values()))
        return _group(rows, labels, [assignment[row.label] for row in rows], names)
    else:
        names = list(dict.fromkeys(row.task for row in rows))
        _check_task_column(names, scenario)
        groups = _group(rows, labels, [row.task for row in rows], names)
        if scenario == "class_incremental":
            _check_disjoint(groups)
    if num_tasks is not None and num_tasks != len(groups):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(groups)} tasks", where="tasks.num_tasks")
    if order == "given":
        return groups
    by_name = {group.name: group for group in groups}
    return [by_name[name] for name in shuffled(by_name, seed, "tasks")]


def shared_out(rows: Sequence[Row], groups: Sequence[RowGroup], seed: int, purpose: str) -> list[list[Row]]:
    """Rows without a label, by task: the one that they name, else one drawn by the seed."""
    positions = {group.name: position for position, group in enumerate(groups)}
    shares: list[list[Row]] = [[] for _ in groups]
    for row in rows:
        drawn = int(draw(seed, purpose, row.id) * len(groups))
        shares[positions.get(row.task, drawn)].append(row)
    return shares


def load_mapping(path: str) -> dict[str, list[str]]:
    """Read a mapping from task to its labels (or domains) from a JSON or YAML file."""
    file = Path(path).expanduser()
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"no such file {path!r}", where="tasks.mapping") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"not a JSON or YAML file: {' '.join(str(error).split())}", where=path) from None
    if not isinstance(content, dict) or not all(isinstance(values, list) and values for values in content.values()):
        raise DataError(
            "expected a mapping from task to a list of labels", where=path, mend='As in {"banking": ["pin_change"]}'
        )
    return {str(task): [str(value) for value in values] for task, values in content.items()}


def _inverted(mapping: Mapping[str, Sequence[str]], keys: Iterable[str], what: str) -> dict[str, str]:
    """From label (or domain) to task, every one of `keys` and nothing else."""
    inverted: dict[str, str] = {}
    for task, values in mapping.items():
        for value in values:
            if value in inverted:
                raise DataError(
                    f"{what} {value!r} lies in two tasks, {inverted[value]!r} and {task!r}", where="tasks.mapping"
                )
            inverted[value] = task
    known = set(keys)
    if missing := sorted(known - inverted.keys()):
        raise DataError(f"no task for {what} {', '.join(map(repr, missing[:5]))}", where="tasks.mapping")
    if unknown := sorted(inverted.keys() - known):
        nearest = difflib.get_close_matches(unknown[0], sorted(known), n=1)
        hint = f"Did you mean {nearest[0]!r}?" if nearest else ""
        raise DataError(f"no row has {what} {unknown[0]!r}", where="tasks.mapping", mend=hint)
    return inverted


def _equal_shares(labels: Sequence[str], num_tasks: int) -> dict[str, str]:
    """From label to task; the first tasks have one label more where the number of labels does not divide."""
    if num_tasks > len(labels):
        raise ConfigError(f"num_tasks = {num_tasks}, but there are {len(labels)} labels", where="tasks.num_tasks")
    width = len(str(num_tasks))
    return {label: f"task-{position * num_tasks // len(labels) + 1:0{width}d}" for position, label in enumerate(labels)}


def _group(rows: Sequence[Row], labels: Sequence[str], tasks: Sequence[str], names: Sequence[str]) -> list[RowGroup]:
    members: dict[str, list[Row]] = {name: [] for name in names}
    for row, task in zip(rows, tasks, strict=True):
        members[task].append(row)
    groups = []
    for name, group in members.items():
        present = {row.label for row in group}
        groups.append(RowGroup(name, tuple(label for label in labels if label in present), tuple(group)))
    return groups


def _check_task_column(names: Sequence[str], scenario: Scenario) -> None:
    if names != [""]:
        return
    ways = "source.task_column" if scenario == "domain_incremental" else "num_tasks, mapping or source.task_column"
    raise ConfigError(f"nothing tells the tasks of a {scenario} scenario apart", where="tasks", mend=f"Set {ways}")


def _check_disjoint(groups: Sequence[RowGroup]) -> None:
    seen: dict[str, str] = {}
    for group in groups:
        for label in group.labels:
            if label in seen:
                raise DataError(
                    f"class {label!r} appears in two tasks, {seen[label]!r} and {group.name!r}",
                    where="tasks.scenario = class_incremental",
                    mend="Use domain_incremental or task_incremental, or group by num_tasks or mapping",
                )
            seen[label] = group.name
