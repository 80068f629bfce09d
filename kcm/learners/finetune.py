"""Finetuning: every task is learned on its own rows alone, the lower bound of every comparison."""

from __future__ import annotations

from kcm.learners.base import Learner, LearnerConfig


class FinetuneConfig(LearnerConfig):
    """Finetuning: the lower bound."""

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Finetune()


class Finetune(Learner):
    """Trains on the rows of the current task, with no protection against forgetting."""
