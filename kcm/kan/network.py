"""A stack of KAN layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from kcm.kan.layer import KANLinear


class KAN(nn.Module):
    """Kolmogorov–Arnold network of the given widths (arXiv 2404.19756): inputs, hidden layers, outputs."""

    def __init__(
        self,
        widths: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        *,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.widths = tuple(widths)
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(
            KANLinear(i, o, grid_size, spline_order, grid_range, generator=generator)
            for i, o in zip(self.widths, self.widths[1:], strict=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., widths[0]] to logits [..., widths[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x
