"""Synaptic intelligence: a quadratic penalty on moving what lowered the loss of old tasks (arXiv 1703.04200).

    L = loss of the stream + strength * sum_i Omega_i (theta_i - theta*_i)^2         (equation 4)
    omega_i = sum over steps of -g_i * (change of theta_i)                            (equation 3)
    Omega_i += max(0, omega_i) / ((change of theta_i over the task)^2 + damping)      (equation 5)

with g the gradient of the stream's loss over the rows of all ranks, before the penalty's is added, and the change that
the optimiser really made. A negative omega_i, of a parameter that raised the loss, counts as 0: its penalty would
reward moving away.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.outputs import resized
from kcm.learners.base import LearnedTask, Learner, LearnerConfig, Parameters


class SiConfig(LearnerConfig):
    """Synaptic intelligence: a quadratic penalty on moving what lowered the loss of old tasks; no memory."""

    strength: float = Field(10.0, ge=0, description="Weight of the penalty, the paper's c.")
    damping: float = Field(0.1, gt=0, description="Keeps the importance of a parameter that hardly moved finite.")

    def build(self, seed: int) -> Learner:
        """A fresh learner."""
        return Si(self)


class Si(Learner):
    """Keeps, for every parameter, its importance, its path integral, and where it stood when the task began."""

    def __init__(self, config: SiConfig) -> None:
        self.strength, self.damping = config.strength, config.damping
        self._importance: dict[str, Tensor] = {}  # Omega
        self._path: dict[str, Tensor] = {}  # omega
        self._anchor: dict[str, Tensor] = {}  # theta*
        self._before: dict[str, tuple[Tensor, Tensor]] = {}  # gradient and place, between the two halves of a step

    def before_update(self, parameters: Parameters) -> None:
        """Note gradient and place of every parameter, then add the gradient of the penalty."""
        for name, parameter in parameters.items():
            assert parameter.grad is not None
            if name not in self._anchor:
                self._anchor[name] = parameter.detach().clone()
                self._path[name], self._importance[name] = torch.zeros_like(parameter), torch.zeros_like(parameter)
            self._before[name] = parameter.grad.clone(), parameter.detach().clone()
            parameter.grad += 2 * self.strength * self._importance[name] * (parameter - self._anchor[name])

    def after_update(self, parameters: Parameters) -> None:
        """Add this step's part of the path integral."""
        for name, (gradient, place) in self._before.items():  # nothing is changed in place: states may be shared
            self._path[name] = self._path[name] - gradient * (parameters[name] - place)
        self._before = {}

    def grow(self, collaborator: Collaborator) -> None:
        """Penalise changes from where the task begins; the parameters of new outputs have importance 0."""
        for name, parameter in collaborator.named_parameters():
            if name in self._anchor:
                self._anchor[name] = parameter.detach().clone()
                self._path[name] = resized(self._path[name], len(parameter))
                self._importance[name] = resized(self._importance[name], len(parameter))

    @torch.no_grad()
    def end_task(self, learned: LearnedTask) -> None:
        """Turn the path integral into importance, and begin a new one here."""
        for name, parameter in learned.collaborator.named_parameters():
            moved = parameter - self._anchor[name]
            gained = self._path[name].clamp_min(0) / (moved.square() + self.damping)
            self._importance[name] = self._importance[name] + gained
            self._path[name] = torch.zeros_like(moved)
            self._anchor[name] = parameter.detach().clone()

    def state_dict(self) -> dict[str, Any]:
        """Importance, path integral and anchor."""
        return {"importance": self._importance, "path": self._path, "anchor": self._anchor}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore importance, path integral and anchor."""
        self._importance, self._path, self._anchor = (dict(state[key]) for key in ("importance", "path", "anchor"))
