"""Classifiers that learn class by class from sums over rows, to compare ours with. None keeps a row.

| name | features | solved by | source |
|---|---|---|---|
| `ncm` | the encoder's | nearest class mean | Mensink et al., IEEE TPAMI 35, 2013 |
| `lda` | the encoder's | LDA, shrinkage .01 | streaming LDA, arXiv 1909.01520, from exact sums |
| `klda` | random Fourier features | LDA | arXiv 2412.15571 |
| `ranpac` | ReLUs of normal projections | ridge regression | arXiv 2307.02251, its second phase |
| `kac` | layer norm, then Gaussians on a fixed grid for every feature | ridge regression | arXiv 2503.21076 |

Differences from the papers: RanPAC and KLDA have the width that the caller names, where the papers have 10,000 and
5,000. RanPAC's strength is chosen by generalised cross-validation, not on a part of the rows. KAC's head is solved, not
trained by gradients, so that it forgets nothing. Shapes: N rows, D features, P features of a head, C classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from kcm.closed_form.discriminant import linear_discriminant, nearest_mean
from kcm.closed_form.gcv import RidgeSums, ridge_by_gcv

SHRINKAGE = 0.01  # of the identity in LDA's covariance
Features = Callable[[Tensor], Tensor]  # [N, D] to [N, P], in float64
Solution = tuple[Tensor, Tensor]  # weight [C, P] and bias [C]


@dataclass
class Head:
    """A classifier linear in `features`, solved from the sums over all rows so far."""

    features: Features
    solve: Callable[[RidgeSums], Solution]
    sums: RidgeSums

    def learn(self, x_ND: NDArray[np.float32], labels_N: NDArray[np.int64]) -> None:
        """Add the rows of a task, and solve."""
        num_classes = len(self.sums.totals_K)
        targets_NC = F.one_hot(torch.from_numpy(labels_N), num_classes).double()
        self.sums.add_rows(self.features(torch.from_numpy(x_ND).double()), targets_NC)
        self.weight_CP, self.bias_C = self.solve(self.sums)

    def answers(self, x_ND: NDArray[np.float32]) -> NDArray[np.int64]:
        """The class of every row, [N], among the classes that have been learned."""
        scores_NC = self.features(torch.from_numpy(x_ND).double()) @ self.weight_CP.T + self.bias_C
        return np.asarray(scores_NC.masked_fill(self.sums.totals_K == 0, -torch.inf).argmax(1))


def head(name: str, dim: int, num_classes: int, width: int, seed: int) -> Head:
    """A head of about `width` coefficients per class that has seen nothing."""
    features, solve = HEADS[name]
    expanded = features(dim, width, seed)
    num_features = expanded(torch.zeros(1, dim, dtype=torch.float64)).shape[1]
    return Head(expanded, solve, RidgeSums(num_features, num_classes, 1))


def plain(dim: int, width: int, seed: int) -> Features:
    """The encoder's features at unit length."""
    return lambda x_ND: F.normalize(x_ND, dim=1)


def fourier(dim: int, width: int, seed: int) -> Features:
    """Cosines that approximate the kernel exp(-|x - y|^2) of rows at unit length (Rahimi and Recht, 2007)."""
    generator = torch.Generator().manual_seed(seed)
    frequency_PD = math.sqrt(2) * torch.randn(width, dim, generator=generator, dtype=torch.float64)
    phase_P = 2 * math.pi * torch.rand(width, generator=generator, dtype=torch.float64)
    return lambda x_ND: torch.cos(F.linear(F.normalize(x_ND, dim=1), frequency_PD, phase_P))


def relu(dim: int, width: int, seed: int) -> Features:
    """ReLUs of normal projections of rows at unit length."""
    generator = torch.Generator().manual_seed(seed)
    projection_PD = torch.randn(width, dim, generator=generator, dtype=torch.float64)
    return lambda x_ND: F.linear(F.normalize(x_ND, dim=1), projection_PD).relu()


def gaussians(dim: int, width: int, seed: int) -> Features:
    """Layer norm, then Gaussians with centres from -2 to 2 for every feature: up to 16, as the width allows."""
    centre_G = torch.linspace(-2, 2, min(16, max(2, width // dim)), dtype=torch.float64)
    distance = float(centre_G[1] - centre_G[0])

    def features(x_ND: Tensor) -> Tensor:
        normal_ND1 = F.layer_norm(x_ND, (dim,)).unsqueeze(-1)
        return torch.exp(-(((normal_ND1 - centre_G) / distance) ** 2)).flatten(1)

    return features


def ridge(sums: RidgeSums, *, exchangeable: bool) -> Solution:
    """Ridge regression on one-hot targets; its strength by generalised cross-validation, as ours."""
    weight_CP = ridge_by_gcv(sums, exchangeable=exchangeable)[0].weight_KP
    return weight_CP, weight_CP.new_zeros(len(weight_CP))


def means(sums: RidgeSums) -> Solution:
    """The nearest class mean."""
    return nearest_mean(sums.totals_K, sums.cross_PK.T)


def discriminant(sums: RidgeSums) -> Solution:
    """LDA with equal priors."""
    return linear_discriminant(sums.totals_K, sums.cross_PK.T, sums.gram_PP, SHRINKAGE)


HEADS: Mapping[str, tuple[Callable[[int, int, int], Features], Callable[[RidgeSums], Solution]]] = {
    "ncm": (plain, means),
    "lda": (plain, discriminant),
    "klda": (fourier, discriminant),
    "ranpac": (relu, partial(ridge, exchangeable=True)),
    "kac": (gaussians, partial(ridge, exchangeable=False)),
}
