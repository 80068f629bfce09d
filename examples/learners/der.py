"""Dark experience replay, DER++: remembered rows keep their label and what the networks said (arXiv 2004.07211).

    L = loss of the stream + alpha * E_memory ||z - f(x)||^2 / C + beta * E_memory loss of the label

with z the logits stored beside the row (equation 6; like the authors' code, the squared norm is a mean over the C
labels). The two expectations are drawn apart, as in algorithm 2.

The paper stores the logits of the moment at which a row is sampled from the stream. Here a row enters the memory when
its task has been learned, so it is the finished networks that are asked. Which rows stay does not depend on the
moment either, and so the memory is the same for any number of workers.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from kcm.learners.base import Batch, Learner, Scored, joined
from kcm.learners.replay import MemoryConfig, Replay


class DerConfig(MemoryConfig):
    """Dark experience replay, DER++: replay of labels, and of what the networks said when a row was remembered."""

    alpha: float = Field(0.3, ge=0, description="Weight of the distance to the remembered logits.")
    beta: float = Field(1.0, ge=0, description="Weight of the labels of remembered rows.")

    def build(self, seed: int) -> Learner:
        """A fresh learner with an empty memory."""
        return Der(self, seed)


class Der(Replay):
    """Replay of logits, weighted `alpha`, and of labels, weighted `beta`; with both at zero it is finetuning."""

    stores_logits: ClassVar[bool] = True

    def __init__(self, config: DerConfig, seed: int) -> None:
        super().__init__(config, seed)
        self.alpha, self.beta = config.alpha, config.beta

    def extra_rows(self, step: int, num_rows: int) -> Batch | None:
        """A draw whose logits count and another whose labels do, each a mean next to that over the stream's rows.

        The step's loss is a mean by weight, so it is the paper's divided by 1 + alpha + beta, which AdamW cannot tell.
        """
        if not len(self.memory):
            return None
        logit_rows, label_rows = self.draw(2 * step), replace(self.draw(2 * step + 1), logits=None)
        weighted = [
            rows.reweighted(rows.weights * (weight * num_rows / len(rows)))
            for rows, weight in ((logit_rows, self.alpha), (label_rows, self.beta))
            if weight > 0
        ]
        return joined(weighted) if weighted else None

    def row_loss(self, scored: Scored) -> Tensor:
        """The distance to a row's logits where it was drawn for them, and else what its label costs."""
        if scored.batch.logits is None:
            return scored.label_loss_N
        stored_MNC = scored.batch.logits.transpose(0, 1)
        known_MNC = stored_MNC.isfinite()  # under seen-class masking, the classes seen when the row was remembered
        squares_MNC = torch.where(known_MNC, scored.logits_MNC - stored_MNC, 0).square()
        count_N = known_MNC[0].sum(-1)
        distance_N = squares_MNC.sum((0, 2)) / count_N.clamp_min(1)
        return torch.where(count_N > 0, distance_N, scored.label_loss_N)
