"""Fixed steps before the networks: a scaling and a mixing. Because they are fixed, a new task changes neither."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.kan.random_relu import random_directions


class UnitNormalizer(nn.Module):
    """Scales every row to length sqrt(D), so that a typical coordinate has unit variance.

    It has no statistics: it does not depend on the order of tasks. The last `num_words` features are topics of words,
    whose length beside a unit vector was chosen: all rows have the same factor there.
    """

    def __init__(self, num_words: int = 0) -> None:
        super().__init__()
        self.num_words = num_words

    def forward(self, features_ND: Tensor) -> Tensor:
        """Scale `features_ND`; a row of zeros stays zero, NaN stays NaN."""
        embedding_ND, words_NW = features_ND.tensor_split((features_ND.shape[-1] - self.num_words,), -1)
        root = math.sqrt(embedding_ND.shape[-1])
        length_N1: Tensor = embedding_ND.norm(dim=-1, keepdim=True).clamp_min(1e-12)
        scaled_ND = embedding_ND * (root / length_N1)
        return torch.cat([scaled_ND, root * words_NW], -1) if self.num_words else scaled_ND


class FrozenNormalizer(nn.Module):
    """Standardises every feature by the mean and deviation of the first task's train rows, frozen from then on."""

    mean: Tensor
    scale: Tensor

    def __init__(self, in_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(in_features))
        self.register_buffer("scale", torch.ones(in_features))

    def forward(self, features_ND: Tensor) -> Tensor:
        """Standardise `features_ND`."""
        return (features_ND - self.mean) * self.scale

    @torch.no_grad()
    def fit(self, batches: Iterable[Tensor], add_up: Callable[[list[Tensor]], None] = lambda sums: None) -> None:
        """Compute mean and deviation from a stream of feature batches [n, D], summed in float64.

        `add_up` replaces the sums of this process by the sums over all processes that hold a part of the rows.
        A feature that does not vary keeps scale 1: it is centred, never divided by zero.
        """
        total = torch.zeros_like(self.mean, dtype=torch.float64)
        count, squares = total.new_zeros(1), torch.zeros_like(total)
        for batch in batches:
            wide = batch.to(total)
            count, total, squares = count + len(wide), total + wide.sum(0), squares + wide.square().sum(0)
        add_up([count, total, squares])
        mean = total / count
        deviation = (squares / count - mean.square()).clamp_min(0).sqrt()
        varies = deviation > 1e-6 * mean.abs().clamp_min(1e-6)
        self.mean.copy_(mean)
        self.scale.copy_(torch.where(varies, 1 / deviation.clamp_min(1e-12), torch.ones_like(deviation)))


class Mixing(nn.Module):
    """`num_outputs` random projections of the features, frozen (RanPAC, arXiv 2307.02251, section 4).

    For a row of length sqrt(D), as the unit normaliser returns it, every projection has mean 0 and variance 1 and is
    close to normal. RanPAC's own nonlinearity is replaced by the splines.
    """

    weight: Tensor

    def __init__(self, in_features: int, num_outputs: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", random_directions(num_outputs, in_features, generator))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Project `x_ND`, in its own precision."""
        return F.linear(x_ND, self.weight.to(x_ND.dtype))
