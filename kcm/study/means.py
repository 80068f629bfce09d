"""The nearest class mean: a baseline without weights, whose running means no later task changes.

Mensink et al., IEEE TPAMI 35 (2013); as the classifier of continual learning: iCaRL, arXiv 1611.07725, equation 2.
"""

from __future__ import annotations

import torch
from torch import Tensor


class NearestClassMean:
    """Means of unit vectors by class; the answer is the class whose mean is nearest, among those seen so far."""

    def __init__(self, in_features: int, num_labels: int) -> None:
        self.sum_CD = torch.zeros(num_labels, in_features, dtype=torch.float64)
        self.count_C = torch.zeros(num_labels, dtype=torch.float64)

    @property
    def num_bytes(self) -> int:
        """Size of the state."""
        return self.sum_CD.nbytes + self.count_C.nbytes

    def add(self, features_ND: Tensor, labels_N: Tensor) -> None:
        """Take rows into the means of their classes."""
        self.sum_CD.index_add_(0, labels_N, _unit(features_ND))
        self.count_C.index_add_(0, labels_N, torch.ones(len(labels_N), dtype=torch.float64))

    def scores(self, features_ND: Tensor) -> Tensor:
        """2 x m_c - |m_c|^2, [N, C], whose largest is the nearest mean; -inf for classes not seen yet."""
        mean_CD = self.sum_CD / self.count_C.clamp_min(1)[:, None]
        score_NC = 2 * _unit(features_ND) @ mean_CD.T - mean_CD.square().sum(1)
        return score_NC.masked_fill(self.count_C == 0, -torch.inf)


def _unit(features_ND: Tensor) -> Tensor:
    return torch.nn.functional.normalize(features_ND.double(), dim=-1)
