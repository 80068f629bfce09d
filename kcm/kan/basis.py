"""Uniform B-splines of degree 1, 2 and 3 in closed form, and the curves that are sums of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from kcm.errors import ConfigError, DataError
from kcm.kan._torch_private import constant_to_compilers, silu_into

_PROBES = 20  # points per interval at which two grids are compared
_NODES = 40  # of a quadrature, per interval


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
        low, high = self.bounds()
        return (x.clamp(low, high) - low) * (self.size / (high - low))

    @constant_to_compilers
    def bounds(self) -> tuple[float, float]:
        """`low` and `high`, as literals to a compiler, which would otherwise carry them as inputs of every call."""
        return self.low, self.high

    def centres(self) -> list[float]:
        """Positions of the splines' centres."""
        return [k - (self.order - 1) / 2 for k in range(self.num_basis)]


@dataclass(frozen=True)
class Curves:
    """The curves of a layer as plain data: `coefficients` [O, 1 + K, I] of SiLU and of the K splines on `grid`."""

    coefficients: Tensor
    grid: Grid

    @torch.no_grad()
    def refit(self, grid_size: int) -> tuple[Curves, float]:
        """The curves on a grid of `grid_size` intervals, in float64, and the largest change of any curve.

        Least squares over equally spaced points; exact when `grid_size` is a multiple of the present one, for then
        the new splines span the old (arXiv 2404.19756, section 2.4).
        """
        old, new = self.grid, Grid(grid_size, self.grid.order, self.grid.low, self.grid.high)
        points = torch.linspace(old.low, old.high, _PROBES * max(old.size, new.size) + 1, dtype=torch.float64)
        old_PK, new_PL = (spline_basis(points.unsqueeze(1), grid).squeeze(-1) for grid in (old, new))
        change_LK = torch.linalg.lstsq(new_PL, old_PK).solution
        coefficients_OFI = self.coefficients.cpu().double()
        splines_OLI = torch.matmul(change_LK, coefficients_OFI[:, 1:])
        change_OPI = torch.matmul(new_PL @ change_LK - old_PK, coefficients_OFI[:, 1:])
        return Curves(torch.cat([coefficients_OFI[:, :1], splines_OLI], 1), new), change_OPI.abs().max().item()


def spline_basis(x: Tensor, grid: Grid) -> Tensor:
    """Values of the splines, [..., K, I] for `x` [..., I] clamped to the grid; NaN stays NaN.

    With distance d to a spline's centre, r = relu(reach - d) and degree p,

        B(d) = (r^p - (p + 1) relu(r - 1)^p) / p!

    which is the truncated-power form (de Boor, A Practical Guide to Splines, IX) folded by symmetry: it has one term
    to cancel instead of p + 1, and is exactly zero outside a spline's support. Half precisions are computed in float32.
    """
    position_I = grid.position(_at_least_float32(x))
    distance_KI = (position_I.unsqueeze(-2) - _centres(grid, position_I.dtype, x.device)).abs()
    return _bump(distance_KI, grid).to(x.dtype)


@lru_cache
@torch.inference_mode(False)  # whoever asks first, the result may take part in training
def normal_means(grid: Grid) -> Tensor:
    """E[B_k(x)] of a standard normal x, clamped to the grid as always; float64 [K], to some 1e-13.

    By Gauss-Legendre quadrature between knots; of the tails all mass lies on the ends of the grid.
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
    """Raise DataError unless `x` is floating point and its last dimension is that of `row`."""
    if not x.is_floating_point():
        raise DataError(f"x holds {x.dtype}", hint="A KAN takes floating-point numbers: call x.float()")
    if x.shape[-1:] != row:
        raise DataError(f"x has shape {tuple(x.shape)}", hint=f"Its last dimension must be {row[0]}")


def edge_features(x: Tensor, grid: Grid) -> Tensor:
    """What every edge is linear in, [..., 1 + K, I]: SiLU, then the splines, for `x` [..., I]."""
    if not torch.compiler.is_compiling():
        return torch.cat([F.silu(x).unsqueeze(-2), spline_basis(x, grid)], -2)
    # Written spline by spline, a compiler fuses them into one pass over x, which is twice as fast.
    position_I = grid.position(_at_least_float32(x))
    splines = (_bump((position_I - centre).abs(), grid).to(x.dtype) for centre in grid.centres())
    return torch.stack([F.silu(x), *splines], -2)


@torch.no_grad()
def edge_features_in_place(x_NI: Tensor, grid: Grid) -> Tensor:
    """`edge_features` of a matrix, written into one block of memory: about 1.7 times as fast, without gradients."""
    features_NFI = x_NI.new_empty(x_NI.shape[0], 1 + grid.num_basis, x_NI.shape[1])
    silu_into(x_NI, features_NFI[:, 0])
    order = grid.order
    # Here the rise carries a minus sign, which saves an operation; it leaves again with the factor at the end.
    rise_NKI, clamped_NI = features_NFI[:, 1:], x_NI.clamp(grid.low, grid.high)
    offset_K1, intervals_per_x = _offsets(grid, x_NI.dtype, x_NI.device)
    torch.add(offset_K1, clamped_NI.unsqueeze(1), alpha=intervals_per_x, out=rise_NKI)
    rise_NKI.abs_().clamp_(max=grid.reach).sub_(grid.reach)
    peak_NKI = F.softshrink(rise_NKI, 1.0).pow_(order)
    rise_NKI.pow_(order).sub_(peak_NKI, alpha=order + 1).mul_((-1) ** order / math.factorial(order))
    return features_NFI


@lru_cache
def _centres(grid: Grid, dtype: torch.dtype, device: torch.device) -> Tensor:
    return torch.tensor(grid.centres(), dtype=dtype, device=device).unsqueeze(1)


@lru_cache
def _offsets(grid: Grid, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, float]:
    """`offset` [K, 1] and `scale` such that offset + scale * x is the signed distance of x from every centre."""
    scale = grid.size / (grid.high - grid.low)
    offsets = [-grid.low * scale - centre for centre in grid.centres()]
    return torch.tensor(offsets, dtype=dtype, device=device).unsqueeze(1), scale


def _at_least_float32(x: Tensor) -> Tensor:
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def _bump(distance: Tensor, grid: Grid) -> Tensor:
    rise = (grid.reach - distance).relu()
    peak = (rise - 1).relu()
    return (rise.pow(grid.order) - (grid.order + 1) * peak.pow(grid.order)) * (1 / math.factorial(grid.order))
