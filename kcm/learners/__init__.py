"""Continual-learning methods, one per file, and the walk that applies them to a task sequence."""

from __future__ import annotations

from kcm.learners.base import Batch, LearnedTask, Learner, Scored
from kcm.learners.config import LearnerConfig
from kcm.learners.finetune import Finetune, FinetuneConfig
from kcm.learners.joint import Joint, JointConfig
from kcm.learners.memory import Memory, MemoryRow
from kcm.learners.replay import Replay, ReplayConfig

__all__ = [
    "Batch",
    "Finetune",
    "FinetuneConfig",
    "Joint",
    "JointConfig",
    "LearnedTask",
    "Learner",
    "LearnerConfig",
    "Memory",
    "MemoryRow",
    "Replay",
    "ReplayConfig",
    "Scored",
]
