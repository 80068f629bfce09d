"""Continual-learning methods, one per file, and the trainer that applies them to a task sequence."""

from __future__ import annotations

from kcm.learners.analytic import AnalyticConfig
from kcm.learners.base import Batch, Classes, LearnedTask, Learner, LearnerConfig, Parameters, Scored
from kcm.learners.der import DerConfig
from kcm.learners.ewc import EwcConfig
from kcm.learners.finetune import FinetuneConfig
from kcm.learners.joint import JointConfig
from kcm.learners.lwf import LwfConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.si import SiConfig
from kcm.learners.slda import SldaConfig

__all__ = [
    "AnalyticConfig",
    "Batch",
    "Classes",
    "DerConfig",
    "EwcConfig",
    "FinetuneConfig",
    "JointConfig",
    "LearnedTask",
    "Learner",
    "LearnerConfig",
    "LwfConfig",
    "Parameters",
    "ReplayConfig",
    "Scored",
    "SiConfig",
    "SldaConfig",
]
