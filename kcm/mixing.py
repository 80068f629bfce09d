"""A frozen random layer between the normaliser and the networks, for which one learned layer is richer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Mixing(nn.Module):
    """`num_outputs` random projections of the features, frozen (RanPAC, arXiv 2307.02251, section 4).

    Every coordinate of a row of length sqrt(D), such as the unit normaliser gives, comes out as a draw from N(0, 1):
    the projections spread over a grid of -3 to 3. RanPAC's own nonlinearity is left to the splines.
    """

    weight: Tensor

    def __init__(self, in_features: int, num_outputs: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        weight_MD = torch.randn(num_outputs, in_features, generator=generator) * in_features**-0.5
        self.register_buffer("weight", weight_MD)

    def forward(self, x_ND: Tensor) -> Tensor:
        """Project `x_ND`, in its own precision."""
        return F.linear(x_ND, self.weight.to(x_ND.dtype))
