"""Anchor: networks are pulled back to where the last task left them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from torch import Tensor

from kcm.collaborator.collaborator import Collaborator
from kcm.learners import LearnedTask, Learner, LearnerConfig, Parameters


class AnchorConfig(LearnerConfig):
    """A spring of one stiffness on every parameter; no memory."""

    strength: float = Field(0.1, ge=0, description="Stiffness of the spring.")

    def build(self, seed: int) -> Learner:
        return Anchor(self.strength)


class Anchor(Learner):
    def __init__(self, strength: float) -> None:
        self.strength = strength
        self.anchors: dict[str, Tensor] = {}

    def before_update(self, parameters: Parameters) -> None:
        for name, anchor in self.anchors.items():
            parameters[name].grad += self.strength * (parameters[name] - anchor)

    def grow(self, collaborator: Collaborator) -> None:
        now = dict(collaborator.named_parameters())
        self.anchors = {name: now[name].detach().clone() for name in self.anchors}

    def end_task(self, learned: LearnedTask) -> None:
        self.anchors = {name: p.detach().clone() for name, p in learned.collaborator.named_parameters()}

    def state_dict(self) -> dict[str, Any]:
        return dict(self.anchors)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.anchors = dict(state)
