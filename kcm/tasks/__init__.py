"""From rows to a sequence of tasks with disjoint splits. `kcm.tasks.preparation.build` writes one."""

from kcm.tasks.rows import BadRow
from kcm.tasks.scenarios import Scenario, TasksConfig
from kcm.tasks.sequence import Task
from kcm.tasks.splits import SPLITS, Fractions, Split

__all__ = ["SPLITS", "BadRow", "Fractions", "Scenario", "Split", "Task", "TasksConfig"]
