"""The serving form of a KAN: the same function with the weights folded once, for answering on a CPU.

A batch uses the powers of `kcm.kan.powers`. A single row costs little but the number of operations, so it has a basis
of its own: ramps clamp((x - foot) / (top - foot), 0, 1)^p, of which three operations evaluate all for all inputs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor, nn

from kcm.kan._torch_private import buffers, hardsigmoid, silu
from kcm.kan.basis import Curves, Grid, check_input, spline_basis
from kcm.kan.powers import fold_matrix, power_terms, windows


class ServingKAN(nn.Module):
    """Layers of a KAN folded for inference: no gradients, float32 (or float64), within 1e-5 of the layers themselves.

    It holds its weights twice and is made by `KAN.export` or `KANLinear.export`.
    """

    def __init__(self, layers: Iterable[Curves]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_FoldedLayer(curves) for curves in layers)
        self.in_features = self.layers[0].in_features
        self._row = torch.Size([self.in_features])  # type: ignore[list-item]

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., in] to [..., out]; raise DataError for another width or for numbers that are not floating."""
        check_input(x, self._row)
        rows_NI = x if x.dim() == 2 else x.reshape(-1, self.in_features)  # type: ignore[call-overload]
        num_rows = rows_NI.shape[0]
        if num_rows == 1:
            for layer in self.layers:
                rows_NI = layer.answer_one(rows_NI)  # type: ignore[operator]
        else:
            rows_NI = rows_NI.detach().contiguous()
            for layer in self.layers:
                rows_NI = layer.answer_many(rows_NI)  # type: ignore[operator]
        return rows_NI if x.dim() == 2 else rows_NI.view(*x.shape[:-1], rows_NI.shape[-1])


class _FoldedLayer(nn.Module):
    @torch.no_grad()
    def __init__(self, curves: Curves) -> None:
        super().__init__()
        self.in_features, self.grid = curves.coefficients.shape[-1], curves.grid
        dtype = torch.float64 if curves.coefficients.dtype == torch.float64 else torch.float32
        weight_OFI = curves.coefficients.double()

        powers_OTI = torch.matmul(fold_matrix(self.grid, torch.float64), weight_OFI)
        self.register_buffer("power_weight", powers_OTI[:, :-1].permute(1, 2, 0).contiguous().to(dtype))
        self.register_buffer("power_bias", powers_OTI[:, -1].sum(-1).to(dtype))

        feet_tops_R2, fold_RK = _ramps(self.grid)
        ramps_ORI = torch.matmul(fold_RK, weight_OFI[:, 1:])
        self.register_buffer("ramp_weight", torch.cat([weight_OFI[:, :1], ramps_ORI[:, :-1]], 1).flatten(1).to(dtype))
        self.register_buffer("ramp_bias", ramps_ORI[:, -1].sum(-1).to(dtype))
        # hardsigmoid(t) is clamp(t / 6 + 1 / 2, 0, 1): t rises from -3 at the foot of a ramp to 3 at its top.
        slope_R1 = 6 / (feet_tops_R2[:, 1:] - feet_tops_R2[:, :1])
        self.register_buffer("slope", slope_R1.to(dtype))
        self.register_buffer("offset", (-3 - slope_R1 * feet_tops_R2[:, :1]).to(dtype))

    def answer_one(self, x_1I: Tensor) -> Tensor:
        own = buffers(self)
        ramps_RI = hardsigmoid(torch.addcmul(own["offset"], x_1I, own["slope"])).pow_(self.grid.order)
        features_F = torch.cat([silu(x_1I), ramps_RI]).view(-1)
        return torch.addmv(own["ramp_bias"], own["ramp_weight"], features_F).view(1, -1)

    def answer_many(self, x_NI: Tensor) -> Tensor:
        out_NO = self.power_bias.expand(x_NI.shape[0], -1).contiguous()  # type: ignore[operator]
        for term_NI, weight_IO in zip(power_terms(x_NI, self.grid), self.power_weight, strict=True):  # type: ignore[arg-type]
            out_NO.addmm_(term_NI, weight_IO)
        return out_NO


@lru_cache
def _ramps(grid: Grid) -> tuple[Tensor, Tensor]:
    """Feet and tops [R, 2] of ramps that with a constant span the splines, and the matrix [R + 1, K] that does it.

    Both in float64; the last row of the matrix is the constant.
    """
    x_N = torch.linspace(grid.low, grid.high, 40 * grid.size + 1, dtype=torch.float64)
    chosen: list[tuple[float, float]] = []
    for window in windows(grid):
        inside = Grid(window.size, grid.order, window.low, window.high)
        inside_N = torch.linspace(window.low, window.high, 201, dtype=torch.float64)
        target_NK = spline_basis(inside_N.unsqueeze(1), inside).squeeze(-1)
        knots = sorted(window.knots[1:-1], key=lambda knot: abs(knot - window.centre))
        ends, ramps = (window.low, window.high), []
        for foot, top in itertools.product((*knots, *ends, window.centre), ends):
            if foot != top:
                ramps.append((foot, top))
                if _solve(inside_N, ramps, target_NK, grid.order)[1] < 1e-9:
                    break
        chosen += ramps
    splines_NK = spline_basis(x_N.unsqueeze(1), grid).squeeze(-1)
    return torch.tensor(chosen, dtype=torch.float64), _solve(x_N, chosen, splines_NK, grid.order)[0]


def _solve(x_N: Tensor, ramps: list[tuple[float, float]], target_NK: Tensor, order: int) -> tuple[Tensor, float]:
    """Coefficients of ramps and constant that come closest to `target_NK`, and the largest error left."""
    columns = [((x_N - foot) / (top - foot)).clamp(0, 1).pow(order) for foot, top in ramps]
    basis_NR = torch.stack([*columns, torch.ones_like(x_N)], 1)
    # Of systems this small, torch's on several threads takes a hundred times as long as NumPy's: half a second in all.
    solution_RK = torch.from_numpy(np.linalg.lstsq(basis_NR.numpy(), target_NK.numpy(), rcond=None)[0])
    return solution_RK, float((basis_NR @ solution_RK - target_NK).abs().max())
