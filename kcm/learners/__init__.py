"""Continual-learning methods, one per file, and the trainer that applies them to a task sequence."""

from __future__ import annotations

from kcm.learners.analytic import Analytic, AnalyticConfig
from kcm.learners.base import Batch, Classes, LearnedTask, Learner, Parameters, Scored
from kcm.learners.config import LearnerConfig
from kcm.learners.der import Der, DerConfig
from kcm.learners.ewc import Ewc, EwcConfig
from kcm.learners.finetune import Finetune, FinetuneConfig
from kcm.learners.joint import Joint, JointConfig
from kcm.learners.lwf import Lwf, LwfConfig
from kcm.learners.memory import Memory
from kcm.learners.replay import Replay, ReplayConfig
from kcm.learners.si import Si, SiConfig
from kcm.learners.slda import Slda, SldaConfig

__all__ = [
    "Analytic",
    "AnalyticConfig",
    "Batch",
    "Classes",
    "Der",
    "DerConfig",
    "Ewc",
    "EwcConfig",
    "Finetune",
    "FinetuneConfig",
    "Joint",
    "JointConfig",
    "LearnedTask",
    "Learner",
    "LearnerConfig",
    "Lwf",
    "LwfConfig",
    "Memory",
    "Parameters",
    "Replay",
    "ReplayConfig",
    "Scored",
    "Si",
    "SiConfig",
    "Slda",
    "SldaConfig",
]
