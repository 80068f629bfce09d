"""One KAN layer: a learned curve on every edge, the SiLU base and the spline packed in one weight."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.errors import ConfigError, DataError
from kcm.kan.basis import Grid, edge_features
from kcm.kan.eager import kan_linear


class KANLinear(nn.Module):
    """A layer of curves (arXiv 2404.19756, eq. 2.10), y_o = sum_i [ b_oi SiLU(x_i) + sum_k c_oik B_k(x_i) ].

    The splines see `x` clamped to the grid, the base extrapolates. There is no bias: the splines sum to one.
    `weight` [out, (1 + K) * in], K = grid_size + spline_order, holds blocks of `in_features` columns: the base, then
    spline 0 to K - 1. Base weights start as those of a linear layer, splines a tenth of that.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        """Raise ConfigError for a width, grid or order that is out of range."""
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ConfigError(f"widths of a layer = ({in_features}, {out_features})", mend="Both must be at least 1")
        self.in_features, self.out_features = in_features, out_features
        self.grid = Grid(grid_size, spline_order, *grid_range)
        weight_OFI = torch.randn(out_features, 1 + self.grid.num_basis, in_features, generator=generator)
        weight_OFI[:, 1:] *= 0.1
        self.weight = nn.Parameter(weight_OFI.flatten(1) * in_features**-0.5)

    def features(self, x: Tensor) -> Tensor:
        """What the layer is linear in, [..., (1 + K) * in] for `x` [..., in]: the output is `features(x) @ weight.T`."""
        return edge_features(x, self.grid).flatten(-2)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., in] to [..., out]. NaN in a row gives NaN in its outputs.

        Raise DataError for another width or for numbers that are not floating point.
        """
        if x.shape[-1:] != (self.in_features,) or not x.is_floating_point():
            raise bad_input(x, self.in_features)
        if not _runs_eagerly(x, self.weight):
            return F.linear(self.features(x), self.weight)
        if x.dim() == 2:
            return kan_linear(x, self.weight, self.grid)
        rows_NI = x.reshape(-1, self.in_features)
        return kan_linear(rows_NI, self.weight, self.grid).view(*x.shape[:-1], self.out_features)

    def extra_repr(self) -> str:
        """Widths and grid, as torch prints them."""
        return f"{self.in_features}, {self.out_features}, {self.grid}"


def bad_input(x: Tensor, in_features: int) -> DataError:
    """What is wrong with an input of a layer that takes [..., in_features]."""
    if not x.is_floating_point():
        return DataError(f"x holds {x.dtype}", mend="A KAN takes floating-point numbers: call x.float()")
    return DataError(f"x has shape {tuple(x.shape)}", mend=f"Its last dimension must be {in_features}")


def _runs_eagerly(x: Tensor, weight: Tensor) -> bool:
    """Whether the hand-written CPU path applies; a compiler, autocast and function transforms need the plain formula."""
    return (
        not torch.compiler.is_compiling()
        and x.is_cpu
        and x.dtype == weight.dtype
        and x.dtype in (torch.float32, torch.float64)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._are_functorch_transforms_active()
    )
