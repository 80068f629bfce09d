"""From rows to a sequence of tasks with disjoint splits."""

from kcm.tasks.build import build_sequence
from kcm.tasks.config import TasksConfig
from kcm.tasks.rows import BadRow
from kcm.tasks.scenarios import Scenario
from kcm.tasks.sequence import Task, TaskSequence
from kcm.tasks.splits import SPLITS, Fractions, Split

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
