"""The layer's forward and backward on a CPU without a compiler: little memory traffic, nothing large stored.

A step of plain autograd writes some ten arrays of [batch, splines, inputs] and reads them back; here it writes one
(few rows) or none (many rows).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from kcm.kan.basis import Grid, edge_features_in_place
from kcm.kan.powers import fold_matrix, power_gradient, power_terms

_FEW_ROWS, _FEW_NUMBERS = 160, 24_000  # measured: below either, storing the splines is faster than changing the basis


def kan_linear(x_NI: Tensor, weight_OF: Tensor, grid: Grid) -> Tensor:
    """Output [N, O] of a KAN layer with packed weight [O, (1 + K) * I], on a CPU in float32 or float64."""
    x_NI = x_NI if x_NI.is_contiguous() else x_NI.contiguous()
    if x_NI.shape[0] >= _FEW_ROWS and x_NI.numel() >= _FEW_NUMBERS:
        return ManyRows.apply(x_NI, weight_OF, grid)  # type: ignore[no-any-return, no-untyped-call]
    if x_NI.requires_grad:
        return FewRows.apply(x_NI, weight_OF, grid)  # type: ignore[no-any-return, no-untyped-call]
    return F.linear(edge_features_in_place(x_NI, grid).flatten(1), weight_OF)  # a first layer: no gradient to write


class FewRows(torch.autograd.Function):
    """B-splines, evaluated in place and kept for the backward pass: one GEMM each way."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OF: Tensor, grid: Grid) -> Tensor:
        features_NF = edge_features_in_place(x_NI, grid).flatten(1)
        ctx.save_for_backward(x_NI, weight_OF, features_NF)
        ctx.grid = grid
        return torch.mm(features_NF, weight_OF.t())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_NI, weight_OF, features_NF = ctx.saved_tensors
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            by_spline_NFI = torch.mm(gradient_NO, weight_OF).unflatten(1, (-1, x_NI.shape[1]))  # type: ignore[no-untyped-call]
            by_power_NFI = _times_each(fold_matrix(ctx.grid, x_NI.dtype)[:-1], by_spline_NFI)
            x_gradient = power_gradient(by_power_NFI, x_NI, ctx.grid)
        if ctx.needs_input_grad[1]:
            weight_gradient = torch.mm(gradient_NO.t(), features_NF)
        return x_gradient, weight_gradient, None


class ManyRows(torch.autograd.Function):
    """Powers, with the weights folded to match, one GEMM per term while it is in cache; evaluated again in backward."""

    @staticmethod
    def forward(ctx: Any, x_NI: Tensor, weight_OF: Tensor, grid: Grid) -> Tensor:
        num_outputs, num_inputs = weight_OF.shape[0], x_NI.shape[1]
        folded_OTI = _times_each(fold_matrix(grid, x_NI.dtype), weight_OF.view(num_outputs, -1, num_inputs))
        constant_O = folded_OTI[:, -1].sum(-1)
        out_NO = constant_O.expand(x_NI.shape[0], -1).contiguous()
        for index, term_NI in enumerate(power_terms(x_NI, grid)):
            out_NO.addmm_(term_NI, folded_OTI[:, index].t())
        ctx.save_for_backward(x_NI, folded_OTI if ctx.needs_input_grad[0] else None)
        ctx.grid = grid
        return out_NO

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NO: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        x_NI, folded_OTI = ctx.saved_tensors
        x_gradient = weight_gradient = None
        if ctx.needs_input_grad[0]:
            terms_OF = folded_OTI[:, :-1].flatten(1)
            by_power_NFI = torch.mm(gradient_NO, terms_OF).unflatten(1, (-1, x_NI.shape[1]))  # type: ignore[no-untyped-call]
            x_gradient = power_gradient(by_power_NFI, x_NI, ctx.grid)
        if ctx.needs_input_grad[1]:
            weight_gradient = _weight_gradient(x_NI, gradient_NO, ctx.grid)
        return x_gradient, weight_gradient, None


def _weight_gradient(x_NI: Tensor, gradient_NO: Tensor, grid: Grid) -> Tensor:
    fold_TF, gradient_ON = fold_matrix(grid, x_NI.dtype), gradient_NO.t()
    by_power_OTI = x_NI.new_empty(gradient_NO.shape[1], fold_TF.shape[0], x_NI.shape[1])
    for index, term_NI in enumerate(power_terms(x_NI, grid)):
        torch.mm(gradient_ON, term_NI, out=by_power_OTI[:, index])
    by_power_OTI[:, -1] = gradient_NO.sum(0).unsqueeze(1)
    by_spline_OFI = _times_each(fold_TF.t(), by_power_OTI)
    # A spline that no row touches has gradient zero, where the powers leave rounding errors. Adam would blow those
    # up to full steps and so move a curve where there are no data. A product, unlike a choice, lets NaN through.
    by_spline_OFI[:, 1:].mul_(touched_splines(x_NI, grid).to(x_NI.dtype))
    return by_spline_OFI.flatten(1)


def _times_each(matrix_GF: Tensor, blocks_NFI: Tensor) -> Tensor:
    """The product of a matrix and every block, [N, G, I]; half the time of `torch.matmul`, which copies the matrix."""
    return torch.bmm(matrix_GF.expand(blocks_NFI.shape[0], -1, -1), blocks_NFI)


def touched_splines(x_NI: Tensor, grid: Grid) -> Tensor:
    """Which splines are non-zero for at least one row, bool [K, I]."""
    centre_K1, reach = _supports(grid, x_NI.dtype)
    first_K1, last_K1 = centre_K1 - reach, centre_K1 + reach
    lowest_I, highest_I = (ends_I.clamp_(grid.low, grid.high) for ends_I in (x_NI.amin(0), x_NI.amax(0)))
    # With rows on both sides of a spline none need lie on it; the first few rows nearly always settle that one does.
    doubtful_KI = (lowest_I <= first_K1) & (highest_I >= last_K1)
    start, stop = 0, 4
    while start < x_NI.shape[0] and doubtful_KI.any():
        doubtful_KI &= (x_NI[start:stop] - centre_K1.unsqueeze(1)).abs_().amin(1) >= reach
        start, stop = stop, 2 * stop
    return (highest_I > first_K1) & (lowest_I < last_K1) & ~doubtful_KI


@lru_cache
def _supports(grid: Grid, dtype: torch.dtype) -> tuple[Tensor, float]:
    """Centres [K, 1] of the splines, and half their width, in units of x."""
    step = (grid.high - grid.low) / grid.size
    centres = [grid.low + step * centre for centre in grid.centres()]
    return torch.tensor(centres, dtype=dtype).unsqueeze(1), step * grid.reach
