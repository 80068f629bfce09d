"""Streaming linear discriminant analysis: class means and one covariance, no memory (SLDA, arXiv 1909.01520).

    logit_c = phi . A m_c - m_c . A m_c / 2,    A = ((1 - s) S + s tr(S) / P I)^-1

phi are the features that the network is linear in: the frozen features for a linear network, as in the paper; the
splines for a one-layer KAN, so that LDA draws curves; the units for a random layer. The paper updates S row by row,
with means that still move. Computed from the sums of all rows, S is exact and independent of order. The paper's
shrinkage is absolute, 1e-4.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from kcm.closed_form.discriminant import linear_discriminant
from kcm.collaborator.class_base import UNSEEN
from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners.analytic import Analytic, AnalyticConfig, require_linear
from kcm.learners.base import Batch, Learner, LearnerConfig
from kcm.learners.ranks import Ranks


class SldaConfig(LearnerConfig):
    """Streaming linear discriminant analysis in closed form; needs `network.hidden: []`.

    It learns from labels alone and ignores `distill`. All classes have equal priors.
    """

    shrinkage: float = Field(
        0.01, gt=0, le=1, description="Share of a multiple of the identity that is mixed into the covariance."
    )
    chunk_size: int = Field(8192, ge=1, description="Rows per step, over all workers; best 1,024 or more per worker.")

    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""
        return Slda(AnalyticConfig(class_balance=0.0, chunk_size=self.chunk_size), self.shrinkage)

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for a network that is not linear."""
        require_linear(network)


class Slda(Analytic):
    """LDA from the sums of `analytic`, the same for judge and small model; labels not seen yet are never the answer."""

    learns_answers = False

    def __init__(self, config: AnalyticConfig, shrinkage: float) -> None:
        super().__init__(config)
        self.shrinkage = shrinkage

    def absorb(self, collaborator: Collaborator, batch: Batch, distill: DistillConfig, ranks: Ranks) -> None:
        """Add the rows to the sums; targets are labels."""
        super().absorb(collaborator, batch, distill.model_copy(update={"large_weight": 0.0}), ranks)

    def solutions(self) -> list[tuple[Tensor, Tensor]]:
        """Weights and offset of LDA."""
        assert self.sums is not None  # every task has rows
        sums = self.sums
        count_C = sums.count * sums.totals_K / sums.totals_K.sum()
        sum_CP = sums.cross_PK.T * (sums.count / sums.totals_K.sum())
        weight_CP, bias_C = linear_discriminant(count_C, sum_CP, sums.gram_PP, self.shrinkage)
        return [(weight_CP, bias_C.masked_fill(count_C == 0, UNSEEN))]

    def without_own_class(self, judge_NC: Tensor, small_NC: Tensor, labels_N: Tensor) -> tuple[Tensor, Tensor]:
        """Only the class's own logit is removed; its rows' spread around their mean stays in the covariance."""
        judge, small = (logits_NC.scatter(1, labels_N[:, None], -torch.inf) for logits_NC in (judge_NC, small_NC))
        return judge, small
