"""Moving a layer's curves to another grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from kcm.kan.basis import Grid, spline_basis

if TYPE_CHECKING:
    from kcm.kan.layer import KANLinear

_PROBES = 20  # per interval


@torch.no_grad()
def refit(layer: KANLinear, grid_size: int) -> tuple[torch.Tensor, float]:
    """Coefficients [O, 1 + K, I] of `layer` on a grid of `grid_size` intervals, and the largest change of any curve.

    Least squares over equally spaced points, in float64; exact when `grid_size` is a multiple of the present one,
    for then the new splines span the old (arXiv 2404.19756, section 2.4).
    """
    old, new = layer.grid, Grid(grid_size, layer.grid.order, layer.grid.low, layer.grid.high)
    points = torch.linspace(old.low, old.high, _PROBES * max(old.size, new.size) + 1, dtype=torch.float64)
    old_PK, new_PL = (spline_basis(points.unsqueeze(1), grid).squeeze(-1) for grid in (old, new))
    change_LK = torch.linalg.lstsq(new_PL, old_PK).solution
    coefficients_OFI = layer.coefficients.cpu().double()
    splines_OLI = torch.matmul(change_LK, coefficients_OFI[:, 1:])
    change_OPI = torch.matmul(new_PL @ change_LK - old_PK, coefficients_OFI[:, 1:])
    return torch.cat([coefficients_OFI[:, :1], splines_OLI], 1), change_OPI.abs().max().item()
