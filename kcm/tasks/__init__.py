"""From rows to a sequence of tasks with disjoint splits. What builds one is imported when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcm.tasks.config import TasksConfig
    from kcm.tasks.plan.scenarios import Scenario
    from kcm.tasks.plan.splits import SPLITS, Fractions, Split
    from kcm.tasks.preparation.build import build_sequence
    from kcm.tasks.rows import BadRow
    from kcm.tasks.sequence import Task, TaskSequence

_MODULES = {
    "SPLITS": "plan.splits",
    "BadRow": "rows",
    "Fractions": "plan.splits",
    "Scenario": "plan.scenarios",
    "Split": "plan.splits",
    "Task": "sequence",
    "TaskSequence": "sequence",
    "TasksConfig": "config",
    "build_sequence": "preparation.build",
}

__all__ = [
    "SPLITS",
    "BadRow",
    "Fractions",
    "Scenario",
    "Split",
    "Task",
    "TaskSequence",
    "TasksConfig",
    "build_sequence",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"kcm.tasks.{_MODULES[name]}"), name)
