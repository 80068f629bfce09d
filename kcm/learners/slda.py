"""Streaming linear discriminant analysis: class means and one covariance, no memory (SLDA, arXiv 1909.01520).

    logit_c = phi . A m_c - m_c . A m_c / 2,    A = ((1 - s) S + s tr(S) / P I)^-1

with phi what the network is linear in: for a linear network the features themselves, as in the paper; for a single
layer of a KAN its splines, so that LDA draws curves; for random units these. The paper updates S row by row, with means
that still move; from the sums of all rows S is exact, and order cannot matter. Its shrinkage is absolute, 1e-4.
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
    """Streaming linear discriminant analysis in closed form; needs `network.hidden: []` and `network.scaling: unit`.

    It learns from labels alone: it uses nothing of `distill`. All classes have equal priors.
    """

    shrinkage: float = Field(
        0.01, gt=0, le=1, description="How far the covariance is taken to a multiple of the identity."
    )
    chunk_size: int = Field(
        8192, ge=1, description="Rows of a step, over all workers together: best 1,024 or more for each worker."
    )

    def build(self, seed: int) -> Learner:
        """A fresh learner that has seen nothing."""
        return Slda(AnalyticConfig(class_balance=0.0, chunk_size=self.chunk_size), self.shrinkage)

    def check_network(self, network: NetworkConfig) -> None:
        """Raise ConfigError for a network that is not linear, or a scaling that depends on order."""
        require_linear(network)


class Slda(Analytic):
    """LDA from the sums that `analytic` has, for judge and small alike; labels not seen yet are never the answer."""

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
        """Without a class its own logit goes alone: how its rows lie about their mean stays in the covariance."""
        judge, small = (each.scatter(1, labels_N[:, None], -torch.inf) for each in (judge_NC, small_NC))
        return judge, small
