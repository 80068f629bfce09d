"""Learning without forgetting: the networks of the last task teach those of this one (Li and Hoiem, arXiv 1606.09282).

    L = loss of the stream + strength * T^2 KL(p_old || p)

over the labels seen before, both softmaxes at temperature T, on the rows of the new task. The paper writes the
cross-entropy, whose gradient is the same, and without T^2, which keeps that gradient's size for any T (Hinton et al.,
arXiv 1503.02531).

With a memory, remembered rows join every step and are taught too: the loss of iCaRL (arXiv 1611.07725, algorithm 3),
with softmaxes and without its nearest-mean classifier.
"""

from __future__ import annotations

from typing import Any

import torch
from pydantic import Field
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.outputs import resized
from kcm.learners.base import LearnedTask, Learner, Scored
from kcm.learners.replay import MemoryConfig, Replay


class LwfConfig(MemoryConfig):
    """Learning without forgetting: the networks of the last task teach those of this one; a memory is optional."""

    memory: int = Field(0, ge=0, description="Rows remembered over all tasks; the paper's method has none.")
    strength: float = Field(3.0, ge=0, description="Weight of the old networks' answers.")
    temperature: float = Field(2.0, gt=0, description="Softmax temperature of teacher and student.")

    def build(self, seed: int) -> Learner:
        """A fresh learner without a teacher."""
        return Lwf(self, seed)


class Lwf(Replay):
    """Keeps one teacher, judge and small as they were when the last task had been learned, and a memory."""

    def __init__(self, config: LwfConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.strength, self.temperature = config.strength, config.temperature
        self._teacher: dict[str, dict[str, Tensor]] = {}  # parameters of each network, and what their base was
        self._old_C = torch.zeros(0, dtype=torch.bool)

    def row_loss(self, scored: Scored) -> Tensor:
        """What the label costs, and what it costs to answer unlike the teacher."""
        if not self._teacher:
            return scored.label_loss_N
        taught_MNC = self.taught(scored.collaborator, scored.batch.features)
        divergence_MNC = F.kl_div(
            self._log_probabilities(scored.logits_MNC),
            self._log_probabilities(taught_MNC),
            reduction="none",
            log_target=True,
        )
        return scored.label_loss_N + self.strength * self.temperature**2 * divergence_MNC.sum((0, 2))

    @torch.no_grad()
    def taught(self, collaborator: Collaborator, features_ND: Tensor) -> Tensor:
        """Logits [M, N, C] of the teacher's networks, on the base that they had."""
        inputs_NM = collaborator.inputs(features_ND)
        networks = collaborator.networks.items()
        logits = [functional_call(network, self._teacher[name], (inputs_NM,)) for name, network in networks]
        taught_MNC = torch.stack(logits)
        if collaborator.base is None:
            return taught_MNC
        base_NC: Tensor = functional_call(collaborator.base, self._teacher["base"], (features_ND,))
        return taught_MNC + base_NC

    def _log_probabilities(self, logits_MNC: Tensor) -> Tensor:
        return F.log_softmax(logits_MNC[..., self._old_C] / self.temperature, -1)

    def grow(self, collaborator: Collaborator) -> None:
        """The teacher gets outputs that it is never asked about."""
        super().grow(collaborator)
        for part, tensors in self._teacher.items():
            now = collaborator.get_submodule(part).state_dict()
            self._teacher[part] = {name: resized(tensor, len(now[name])) for name, tensor in tensors.items()}
        self._old_C = resized(self._old_C, collaborator.num_labels)

    def end_task(self, learned: LearnedTask) -> None:
        """The finished networks become the teacher."""
        self._teacher = {
            network: {name: p.detach().clone() for name, p in module.named_parameters()}
            for network, module in learned.collaborator.networks.items()
        }
        if (base := learned.collaborator.base) is not None:
            self._teacher["base"] = {"weight": base.weight.clone(), "bias": base.bias.clone()}
        self._old_C = learned.seen_C.clone()

    def state_dict(self) -> dict[str, Any]:
        """The memory, the teacher's parameters, and the labels it knows."""
        return {**super().state_dict(), "teacher": self._teacher, "old": self._old_C}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore memory and teacher."""
        super().load_state_dict(state)
        self._teacher, self._old_C = dict(state["teacher"]), state["old"]
