"""The bounds of every comparison: finetuning below, joint training above."""

from __future__ import annotations

from typing import ClassVar

from kcm.learners.base import Learner, LearnerConfig


class FinetuneConfig(LearnerConfig):
    """Finetuning on the rows of the current task alone, without protection against forgetting: the lower bound."""

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Learner()


class JointConfig(LearnerConfig):
    """Joint training: the upper bound."""

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Joint()


class Joint(Learner):
    """Restarts at every task with new networks, and trains on the rows of all tasks so far."""

    restarts: ClassVar[bool] = True

    def tasks_to_stream(self, task: int) -> range:
        """All tasks up to this one."""
        return range(task + 1)
