"""The spline space in a second basis, of clamped powers, which needs a third of the work of B-splines to evaluate.

In a window [a, b] of the grid with centre m let v = clamp(x, a, b) - m. The piecewise polynomials of degree p on it
are spanned by 1, v, ..., v^p and, for knots at m + l and m - l, by s|s|^(p-1) and |s|^p with s = softshrink(v, l);
a knot at m itself adds v^p sign(v). A spline on the whole grid is a sum over windows plus a constant. The change of
basis is a small matrix, folded into the weights.

Powers cancel against each other: in a window of 5 intervals rounding errors grow about 20-fold, which float32 bears;
wider windows would cost digits (300-fold at 12 intervals), hence the windows.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from kcm.kan._torch_private import silu_into, softshrink_into
from kcm.kan.basis import Grid, spline_basis

_MAX_INTERVALS = 5


@dataclass(frozen=True)
class KnotWindow:
    """Neighbouring intervals of a grid: `knots` holds their ends, `low` to `high`."""

    knots: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of intervals."""
        return len(self.knots) - 1

    @cached_property
    def low(self) -> float:
        """The first knot."""
        return self.knots[0]

    @cached_property
    def high(self) -> float:
        """The last knot."""
        return self.knots[-1]

    @cached_property
    def centre(self) -> float:
        """The middle."""
        return (self.low + self.high) / 2

    @cached_property
    def has_centre_knot(self) -> bool:
        """Whether a knot, not an interval, lies in the middle."""
        return self.size % 2 == 0

    @cached_property
    def offsets(self) -> tuple[float, ...]:
        """Distances of the inner knots right of the centre from it; those on the left mirror them."""
        return tuple(knot - self.centre for knot in self.knots[self.size // 2 + 1 : -1])


@lru_cache
def windows(grid: Grid) -> tuple[KnotWindow, ...]:
    """Split the grid evenly into windows of at most five intervals."""
    count = math.ceil(grid.size / _MAX_INTERVALS)
    edges = [grid.size * w // count for w in range(count + 1)]
    knots = [grid.low + (grid.high - grid.low) * k / grid.size for k in range(grid.size)] + [grid.high]
    return tuple(KnotWindow(tuple(knots[first : last + 1])) for first, last in itertools.pairwise(edges))


def power_terms(x_NI: Tensor, grid: Grid) -> Iterator[Tensor]:
    """Yield SiLU and then every power, each [N, I] and valid only until the next is drawn: they share their memory."""
    scratch_NI = torch.empty_like(x_NI)
    yield silu_into(x_NI, scratch_NI)
    for window in windows(grid):
        v_NI = _enter(x_NI, window)
        power_NI = v_NI
        yield power_NI
        for _ in range(grid.order - 1):
            power_NI = torch.mul(power_NI, v_NI, out=scratch_NI)
            yield power_NI
        if window.has_centre_knot:
            yield torch.mul(power_NI, v_NI.sign(), out=scratch_NI)
        for offset in window.offsets:
            yield _odd_power_(softshrink_into(v_NI, offset, scratch_NI), grid.order)
            yield scratch_NI.abs_()


def power_gradient(gradient_NFI: Tensor, x_NI: Tensor, grid: Grid) -> Tensor:
    """Gradient with respect to `x_NI` of a sum whose gradient with respect to the terms is `gradient_NFI`."""
    gradients = iter(gradient_NFI.unbind(1))
    total_NI = torch.ops.aten.silu_backward(next(gradients), x_NI)
    order = grid.order
    for window in windows(grid):
        v_NI = _enter(x_NI, window)
        polynomial = [next(gradients) for _ in range(order)]
        slope_NI = polynomial[-1] * order
        for degree in range(order - 1, 0, -1):
            slope_NI = slope_NI.mul_(v_NI).add_(polynomial[degree - 1], alpha=degree)
        if window.has_centre_knot:
            slope_NI.addcmul_(next(gradients), v_NI.pow(order - 1).mul_(v_NI.sign()), value=order)
        for offset in window.offsets:
            shrunk_NI = F.softshrink(v_NI, offset)
            sign_NI = shrunk_NI.sign()
            size_NI = sign_NI.abs() if order == 1 else shrunk_NI.abs_().pow_(order - 1)
            both_NI = torch.addcmul(next(gradients), next(gradients), sign_NI)
            slope_NI.addcmul_(both_NI, size_NI, value=order)
        total_NI.add_(torch.ops.aten.hardtanh_backward(slope_NI, x_NI, *_open_range(window, grid, x_NI.dtype)))
    return total_NI  # type: ignore[no-any-return]


@lru_cache
@torch.no_grad()
def fold_matrix(grid: Grid, dtype: torch.dtype) -> Tensor:
    """Matrix [1 + terms + 1, 1 + K] from coefficients of SiLU and splines to those of SiLU, powers and constant.

    Solved in float64 from the values of both bases at ten points per interval, to about 1e-12.
    """
    x_N1 = torch.linspace(grid.low, grid.high, 10 * grid.size + 1, dtype=torch.float64).unsqueeze(1)
    _, *terms = (term.clone() for term in power_terms(x_N1, grid))
    powers_NF = torch.cat([*terms, torch.ones_like(x_N1)], 1)
    solution_FK = torch.linalg.lstsq(powers_NF, spline_basis(x_N1, grid).squeeze(-1)).solution
    return torch.block_diag(torch.ones(1, 1, dtype=torch.float64), solution_FK).to(dtype)  # type: ignore[no-any-return, no-untyped-call]


def _enter(x_NI: Tensor, window: KnotWindow) -> Tensor:
    v_NI = x_NI.clamp(window.low, window.high)
    return v_NI.sub_(window.centre) if window.centre else v_NI


def _odd_power_(s: Tensor, order: int) -> Tensor:
    """s |s|^(order - 1), in place."""
    if order == 2:
        return s.mul_(s.abs())
    return s.pow_(order)


@lru_cache
def _open_range(window: KnotWindow, grid: Grid, dtype: torch.dtype) -> tuple[float, float]:
    """Bounds that admit low <= x < high strictly between them: no x counts in two windows, the last takes x = high."""
    low, high, infinity = (torch.tensor(bound, dtype=dtype) for bound in (window.low, window.high, math.inf))
    high = torch.nextafter(high, infinity) if window.high == grid.high else high
    return float(torch.nextafter(low, -infinity)), float(high)
