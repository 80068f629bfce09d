"""Joint training: after task i, networks trained anew on tasks 1 to i; the upper bound of every comparison."""

from __future__ import annotations

from typing import ClassVar

from kcm.learners.base import Learner, LearnerConfig


class JointConfig(LearnerConfig):
    """Joint training: the upper bound."""

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Joint()


class Joint(Learner):
    """Restarts at every task and trains on the rows of all tasks so far."""

    restarts: ClassVar[bool] = True

    def tasks_to_stream(self, task: int) -> range:
        """All tasks up to this one."""
        return range(task + 1)
