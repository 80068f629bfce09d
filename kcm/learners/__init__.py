"""Continual-learning methods, one per file, and the walk that applies them to a task sequence."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcm.config import Config
from kcm.learners.base import Batch, Learner
from kcm.learners.finetune import Finetune
from kcm.learners.joint import Joint
from kcm.learners.memory import Memory, MemoryRow
from kcm.learners.replay import Replay


class FinetuneConfig(Config):
    """Finetuning: the lower bound."""

    name: Literal["finetune"] = "finetune"

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Finetune()


class JointConfig(Config):
    """Joint training: the upper bound."""

    name: Literal["joint"] = "joint"

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Joint()


class ReplayConfig(Config):
    """Experience replay from a memory of fixed capacity."""

    name: Literal["replay"] = "replay"
    memory: int = Field(400, ge=0, description="Rows remembered over all tasks and labels.")
    batch_size: int = Field(32, ge=1, description="Remembered rows that join every step's batch.")

    def build(self, seed: int) -> Learner:
        """A fresh learner with an empty memory."""
        return Replay(self.memory, self.batch_size, seed)


LearnerConfig = Annotated[FinetuneConfig | JointConfig | ReplayConfig, Field(discriminator="name")]

__all__ = [
    "Batch",
    "Finetune",
    "FinetuneConfig",
    "Joint",
    "JointConfig",
    "Learner",
    "LearnerConfig",
    "Memory",
    "MemoryRow",
    "Replay",
    "ReplayConfig",
]
