"""The configuration that all learners share."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

from pydantic import Field

from kcm.collaborator.collaborator import NetworkConfig
from kcm.components import FAMILIES, Component, Family
from kcm.learners.base import Learner


class LearnerConfig(Component):
    """A continual-learning method and its settings; see docs/extending.md for one of your own."""

    family: ClassVar[Family] = FAMILIES["learner"]
    gives_left_out: ClassVar[bool] = False  # its learner has `left_out`: train rows may choose gate and policy

    name: str = Field("", description="Chooses this form of the section.")

    @abstractmethod
    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""

    @property
    def closed_form(self) -> bool:
        """Whether the method solves instead of taking steps: learning rates mean nothing to it."""
        return self.build(seed=0).closed_form

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for networks that the method cannot train."""
