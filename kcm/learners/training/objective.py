"""What the rows of a step cost: the collaboration loss of KCM, under a learner's loss of labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig, distillation_loss
from kcm.learners.base import Batch, Classes, Learner, Scored, joined
from kcm.learners.ranks import Ranks


@dataclass(frozen=True)
class Objective:
    """What the networks say of rows while a task is trained, and what their labels and teachers cost.

    With `mask_unseen`, labels of later tasks take no part. Shapes: N rows, C labels, M networks.
    """

    collaborator: Collaborator
    learner: Learner
    distill: DistillConfig
    classes: Classes
    mask_unseen: bool

    def loss(self, batch: Batch, extra: Batch | None, num_rows: int, ranks: Ranks) -> Tensor:
        """The loss of a rank's share of a step, divided by the weight of all ranks' rows.

        `batch` is its share of `num_rows` rows of the stream, `extra` are all rows that join them.
        """
        total, num_stream = float(num_rows), len(batch)
        if extra is not None:
            index, weights = ranks.share(torch.arange(len(extra)))
            batch = joined([batch, extra.take(index, weights * extra.weights[index])])
            total += float(extra.weights.sum())
        loss_N = self.learner.row_loss(self.scored(batch, num_stream))
        return (loss_N * batch.weights).sum() / total

    def scored(self, batch: Batch, num_stream: int) -> Scored:
        """What the networks say of a batch, and what its labels and teachers cost.

        The first `num_stream` rows are of the stream, the others remembered. A row without a label costs nothing but
        what its teachers say.
        """
        judge_NC, small_NC = self.logits(batch.features)
        given = (batch.labels, num_stream, self.classes)
        loss_N = self.learner.label_loss(judge_NC, *given)
        if self.collaborator.network.shared:
            return Scored(batch, self.collaborator, judge_NC.unsqueeze(0), loss_N)
        loss_N = loss_N + self.learner.label_loss(small_NC, *given)
        large_NC, seen_C = batch.large_probabilities, self.classes.seen_C
        loss_N = loss_N + distillation_loss(judge_NC, small_NC, large_NC, self.distill, seen_C)
        return Scored(batch, self.collaborator, torch.stack([judge_NC, small_NC]), loss_N)

    def logits(self, features_ND: Tensor) -> tuple[Tensor, Tensor]:
        """Judge and small logits, those of unseen labels out of the way where they are masked."""
        judge_NC, small_NC = self.collaborator(features_ND)
        if not self.mask_unseen:
            return judge_NC, small_NC
        unseen_C = ~self.classes.seen_C
        return judge_NC.masked_fill(unseen_C, UNSEEN), small_NC.masked_fill(unseen_C, UNSEEN)

    @property
    def active_C(self) -> Tensor:
        """Labels whose logits take part in the loss: all, or the seen ones, which alone have a base."""
        only_seen = self.mask_unseen or self.collaborator.base is not None
        return self.classes.seen_C if only_seen else torch.ones_like(self.classes.seen_C)

    @torch.no_grad()
    def logits_to_remember(self, batch: Batch) -> Tensor:
        """What each network says of every row, [N, M, C]; NaN for labels that take no part."""
        logits_NMC = torch.stack(self.logits(batch.features)[: len(self.collaborator.networks)], 1)
        return logits_NMC.masked_fill(~self.active_C, torch.nan)
