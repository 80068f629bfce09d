"""Finetuning: every task is learned on its own rows alone, the lower bound of every comparison."""

from __future__ import annotations

from typing import Literal

from kcm.config import Config
from kcm.learners.base import Learner


class FinetuneConfig(Config):
    """Finetuning: the lower bound."""

    name: Literal["finetune"] = "finetune"

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Finetune()


class Finetune(Learner):
    """Trains on the rows of the current task, with no protection against forgetting."""
