"""Random directions in space that repeat each other as little as they can."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def random_directions(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """`count` unit vectors [count, dim], uniform on the sphere, orthogonal within every block of `dim`.

    Features of orthogonal directions vary less about their kernel than those of independent ones (arXiv 1610.09072).
    """
    directions = torch.empty(count, dim)
    for block in directions.split(dim):  # type: ignore[no-untyped-call]
        nn.init.orthogonal_(block, generator=generator)
    return directions
