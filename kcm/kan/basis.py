"""Uniform B-splines of degree 1, 2 and 3 in closed form."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kcm.errors import ConfigError, DataError

_NODES = 40  # nodes of the quadrature in each interval


@dataclass(frozen=True)
class Grid:
    """`size` equal intervals over [`low`, `high`], carrying splines of degree `order`.

    Positions are measured in intervals from `low`. Spline k has its centre at k - (order - 1) / 2, is zero from
    (order + 1) / 2 intervals away from it, and all `num_basis` = size + order splines sum to one.
    """

    size: int
    order: int
    low: float
    high: float

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"grid_size = {self.size}", hint="It counts the intervals of the grid: at least 1")
        if self.order not in (1, 2, 3):
            raise ConfigError(f"spline_order = {self.order}", hint="Use 1, 2 or 3")
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ConfigError(
                f"grid_range = ({self.low}, {self.high})", hint="Give two finite numbers, the lower first"
            )

    @property
    def num_basis(self) -> int:
        """Number of splines on the grid."""
        return self.size + self.order

    @property
    def reach(self) -> float:
        """Half the width of a spline, in intervals."""
        return (self.order + 1) / 2

    def position(self, x: Tensor) -> Tensor:
        """`x`, clamped to the grid, in intervals from `low`."""
        return (x.clamp(self.low, self.high) - self.low) * (self.size / (self.high - self.low))

    def centres(self) -> list[float]:
        """Positions of the splines' centres."""
        return [k - (self.order - 1) / 2 for k in range(self.num_basis)]


def spline_basis(x: Tensor, grid: Grid) -> Tensor:
    """Values of the splines, [..., K, I] for `x` [..., I] clamped to the grid; NaN stays NaN.

    With distance d to a spline's centre, r = relu(reach - d) and degree p,

        B(d) = (r^p - (p + 1) relu(r - 1)^p) / p!

    which is the truncated-power form (de Boor, A Practical Guide to Splines, IX) folded by symmetry: it has one term
    to cancel instead of p + 1, and is exactly zero outside a spline's support. Half precisions are computed in float32.
    """
    position_I = grid.position(_at_least_float32(x))
    offset_KI = position_I.unsqueeze(-2) - _centres(grid, position_I.dtype, x.device)
    bump = _bump if x.requires_grad else _bump_in_place
    return bump(offset_KI, grid).to(x.dtype)


@lru_cache
@torch.inference_mode(False)  # the cached result may take part in training, whoever computes it first
def normal_means(grid: Grid) -> Tensor:
    """E[B_k(x)] of a standard normal x, clamped to the grid as always; float64 [K], to some 1e-13.

    Computed by Gauss-Legendre quadrature between knots; the tails' mass lies on the ends of the grid.
    """
    knots_E = torch.linspace(grid.low, grid.high, grid.size + 1, dtype=torch.float64)
    nodes, weights = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(_NODES))
    half_E1 = (knots_E[1:] - knots_E[:-1]).unsqueeze(1) / 2
    points_P = (knots_E[:-1].unsqueeze(1) + half_E1 * (1 + nodes)).flatten()
    density_P = torch.exp(-points_P.square() / 2) / math.sqrt(2 * math.pi)
    tails = torch.special.ndtr(torch.stack([knots_E[0], -knots_E[-1]]))
    mass_P = torch.cat([(half_E1 * weights).flatten() * density_P, tails])
    splines_PK = spline_basis(torch.cat([points_P, knots_E[[0, -1]]]).unsqueeze(1), grid).squeeze(-1)
    return mass_P @ splines_PK


def check_input(x: Tensor, row: torch.Size) -> None:
    """Raise DataError unless `x` is floating point and its last dimension equals the dimension of `row`."""
    if not x.is_floating_point():
        raise DataError(f"x holds {x.dtype}", hint="A KAN takes floating-point numbers: call x.float()")
    if x.shape[-1:] != row:
        raise DataError(f"x has shape {tuple(x.shape)}", hint=f"Its last dimension must be {row[0]}")


def edge_features(x: Tensor, grid: Grid) -> Tensor:
    """The features that every edge is linear in, [..., 1 + K, I]: SiLU, then the splines, for `x` [..., I]."""
    if not torch.compiler.is_compiling():
        return torch.cat([F.silu(x).unsqueeze(-2), spline_basis(x, grid)], -2)
    # Written spline by spline, so that a compiler can fuse them into one pass over x, which is twice as fast.
    position_I = grid.position(_at_least_float32(x))
    splines = (_bump(position_I - centre, grid).to(x.dtype) for centre in grid.centres())
    return torch.stack([F.silu(x), *splines], -2)


@lru_cache
def _centres(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(grid.centres(), dtype=dtype).to(device).unsqueeze(1)


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _bump(offset: Tensor, grid: Grid) -> Tensor:
    """The spline at `offset` intervals from its centre."""
    rise = (grid.reach - offset.abs()).relu()
    peak = (rise - 1).relu()
    return (rise.pow(grid.order) - (grid.order + 1) * peak.pow(grid.order)) * (1 / math.factorial(grid.order))


def _bump_in_place(offset: Tensor, grid: Grid) -> Tensor:
    """`_bump`, written over `offset`: a third of the time on a CPU, for a first layer, whose inputs need no gradient.

    The rise carries a minus sign, which saves an operation; it leaves again with the last factor.
    """
    order = grid.order
    rise = offset.abs_().clamp_(max=grid.reach).sub_(grid.reach)
    peak = F.softshrink(rise, 1.0).pow_(order)
    return rise.pow_(order).sub_(peak, alpha=order + 1).mul_((-1) ** order / math.factorial(order))
