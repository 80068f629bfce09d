"""A frozen random layer between the normaliser and the networks, for networks of a single learned layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.kan.random_relu import random_directions


class Mixing(nn.Module):
    """`num_outputs` random projections of the features, frozen (RanPAC, arXiv 2307.02251, section 4).

    Every coordinate of a row of length sqrt(D), such as the unit normaliser gives, comes out with mean 0 and variance
    1, close to normal. RanPAC's own nonlinearity is left to the splines.
    """

    weight: Tensor

    def __init__(self, in_features: int, num_outputs: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("weight", random_directions(num_outputs, in_features, generator))

    def forward(self, x_ND: Tensor) -> Tensor:
        """Project `x_ND`, in its own precision."""
        return F.linear(x_ND, self.weight.to(x_ND.dtype))
