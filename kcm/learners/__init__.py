"""Continual-learning methods, and the trainer that applies them to a task sequence. Each kind has a file of its own."""

from __future__ import annotations

from kcm.learners.base import Batch, Classes, LearnedTask, Learner, LearnerConfig, Parameters, Scored

__all__ = ["Batch", "Classes", "LearnedTask", "Learner", "LearnerConfig", "Parameters", "Scored"]
