"""Elastic weight consolidation: a quadratic penalty holds what old tasks need near its old values (arXiv 1612.00796).

    L = loss of the stream + strength / 2 * sum_t sum_i F_ti (theta_i - theta_ti)^2

with theta_t the parameters after task t and F_t the diagonal of its Fisher information there (equation 3). The sum
over tasks is a quadratic, so two tensors hold it: A = sum_t F_t and b = sum_t F_t theta_t, whose gradient is
strength * (A theta - b). The online variant (arXiv 1805.06370, section 4) has one penalty, around the latest
parameters: A = decay * A + F_t, b = A theta_t.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from examples.learners.fisher import FisherKind, sum_squared_gradients
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.outputs import resized
from kcm.learners.base import LearnedTask, Learner, LearnerConfig, Parameters


class EwcConfig(LearnerConfig):
    """Elastic weight consolidation: a quadratic penalty on moving what old tasks need; no memory."""

    strength: float = Field(100.0, ge=0, description="Weight of the penalty, the paper's lambda.")
    fisher: FisherKind = Field(
        "exact", description="Fisher over all labels by their probability, or of the true label alone."
    )
    online: bool = Field(False, description="One penalty around the latest parameters, instead of one per task.")
    decay: float = Field(1.0, gt=0, le=1, description="What the online variant multiplies earlier tasks by.")

    def build(self, seed: int) -> Learner:
        """A fresh learner without a penalty."""
        return Ewc(self)


class Ewc(Learner):
    """Keeps the quadratic A, b of the tasks so far, in float64 since A theta - b cancels."""

    def __init__(self, config: EwcConfig) -> None:
        self.config = config
        self._stiffness: dict[str, Tensor] = {}  # A
        self._pull: dict[str, Tensor] = {}  # b

    def before_update(self, parameters: Parameters) -> None:
        """Add the gradient of the penalty."""
        for name, stiffness in self._stiffness.items():
            parameter = parameters[name]
            assert parameter.grad is not None
            parameter.grad += self.config.strength * (stiffness * parameter - self._pull[name])

    def grow(self, collaborator: Collaborator) -> None:
        """Extend the quadratic to the outputs of new labels, which no penalty holds."""
        for name, parameter in collaborator.named_parameters():
            if name in self._stiffness:
                self._stiffness[name] = resized(self._stiffness[name], len(parameter))
                self._pull[name] = resized(self._pull[name], len(parameter))

    @torch.no_grad()
    def end_task(self, learned: LearnedTask) -> None:
        """Add the penalty around the finished parameters; rows without labels say nothing of the Fisher information."""
        if not learned.num_rows:
            return
        fisher = _fisher(learned, self.config.fisher)
        for name, parameter in learned.collaborator.named_parameters():
            before = self._stiffness.get(name, torch.zeros_like(fisher[name]))
            if self.config.online:
                self._stiffness[name] = self.config.decay * before + fisher[name]
                self._pull[name] = self._stiffness[name] * parameter
            else:
                self._stiffness[name] = before + fisher[name]
                self._pull[name] = self._pull.get(name, 0) + fisher[name] * parameter

    def state_dict(self) -> dict[str, Any]:
        """The quadratic."""
        return {"stiffness": self._stiffness, "pull": self._pull}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the quadratic."""
        self._stiffness, self._pull = dict(state["stiffness"]), dict(state["pull"])


def _fisher(learned: LearnedTask, kind: FisherKind) -> dict[str, Tensor]:
    """Diagonal of the Fisher information of every network, by parameter: a mean over the train rows of all ranks."""
    parameters = dict(learned.collaborator.named_parameters())
    total = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    for batch in learned.batches:
        inputs_NM = learned.collaborator.inputs(batch.features)
        base = learned.collaborator.base
        base_NC = 0.0 if base is None else base(batch.features)
        rows = (inputs_NM, batch.labels, batch.weights)
        for network, module in learned.collaborator.networks.items():
            squares = sum_squared_gradients(module, *rows, learned.active_C, kind, base_NC)
            for name, square in squares.items():
                total[f"{network}.{name}"] += square
    learned.ranks.sum_(total.values())
    return {name: square / learned.num_rows for name, square in total.items()}
