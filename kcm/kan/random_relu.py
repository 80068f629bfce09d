"""The control of a KAN that is fitted in closed form: frozen random units with as many coefficients on top."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.errors import ConfigError
from kcm.kan.network import KAN


def random_directions(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """`count` unit vectors [count, dim], uniform on the sphere, orthogonal within every block of `dim`.

    Features of orthogonal directions vary less about their kernel than those of independent ones (arXiv 1610.09072).
    """
    directions = torch.empty(count, dim)
    for block in directions.split(dim):  # type: ignore[no-untyped-call]
        nn.init.orthogonal_(block, generator=generator)
    return directions


class RandomReLU(nn.Module):
    """y = W relu(R x): a random layer R that stays as it was drawn, and the trainable `weight` W [out, width].

    The random-features baseline of RanPAC (arXiv 2307.02251, section 4).
    """

    projection: Tensor

    def __init__(self, in_features: int, width: int, out_features: int, *, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("projection", random_directions(width, in_features, generator))
        self.weight = nn.Parameter(torch.randn(out_features, width, generator=generator) * width**-0.5)

    @classmethod
    def matching(cls, kan: KAN, *, seed: int = 0) -> RandomReLU:
        """The network with exactly as many coefficients as the single layer of `kan`; ConfigError for more layers."""
        if len(kan.kan_layers) > 1:
            raise ConfigError(f"widths = {list(kan.widths)}", mend="A random layer is matched to a KAN of one layer")
        num_outputs, width = kan.kan_layers[0].weight.shape
        return cls(kan.widths[0], width, num_outputs, seed=seed)

    def features(self, x: Tensor) -> Tensor:
        """What the output is linear in, [..., width] for `x` [..., in], in the precision of `x`."""
        return F.linear(x, self.projection.to(x.dtype)).relu()

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., in] to [..., out]."""
        return F.linear(self.features(x), self.weight)
