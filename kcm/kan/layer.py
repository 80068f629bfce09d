"""One KAN layer: a learned curve on every edge, the SiLU base and the spline packed in one weight."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.errors import ConfigError
from kcm.kan.basis import Grid, check_input, edge_features, normal_means

BaseActivation = Literal["silu", "none"]


class KANLinear(nn.Module):
    """A layer of curves (arXiv 2404.19756, section 2.2), y_o = sum_i [ b_oi SiLU(x_i) + sum_k c_oik B_k(x_i) ].

    The splines see `x` clamped to the grid; the base extrapolates. There is no bias: the splines sum to one.
    `weight` [out, (1 + K) * in], with K = grid_size + spline_order, holds blocks of `in_features` columns: the base
    first, then splines 0 to K - 1. Base weights start as in a linear layer, spline weights at a tenth of that scale.

    A `hidden` layer, whose outputs feed another layer, multiplies its features by min(1, 5 / sqrt(in)) and starts with
    weights larger by the same factor. The function is the same, but it moves more slowly under an optimiser with steps
    of fixed size. Every input has a constant; if all constants step together, as under Adam, the outputs leave the next
    layer's grid and stay there (measured on 384 inputs: without the factor, training collapses at a rate of 0.01).

    `base_activation="none"` removes the base and its weights. A `centred` layer uses B_k - E[B_k(z)] in place of B_k,
    with z standard normal. The mean contribution of inputs with mean 0 and variance 1 is then known in advance, and no
    step on an output's splines moves it for all rows alike. Such splines cannot express a constant, so the layer gets a
    `bias` [out] that starts at zero. `zero_start` starts the weight at zero. In every form, `coefficients` are the
    coefficients of the formula above.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        *,
        hidden: bool = False,
        base_activation: BaseActivation = "silu",
        centred: bool = False,
        zero_start: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        """Raise ConfigError for a width, grid or order that is out of range."""
        super().__init__()
        if in_features < 1 or out_features < 1:
            raise ConfigError(f"widths of a layer = ({in_features}, {out_features})", hint="Both must be at least 1")
        self.in_features, self.out_features, self.hidden = in_features, out_features, hidden
        self._row = torch.Size([in_features])
        self.grid = Grid(grid_size, spline_order, *grid_range)
        weight_OFI = torch.randn(out_features, 1 + self.grid.num_basis, in_features, generator=generator)
        weight_OFI[:, 1:] *= 0.1
        self.has_base, self.centred = base_activation == "silu", centred
        start = 0.0 if zero_start else in_features**-0.5 / self.scale
        self.weight = nn.Parameter(weight_OFI[:, 1 - self.has_base :].flatten(1) * start)
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_features)) if centred else None)

    def drawn(self, out_features: int, generator: torch.Generator) -> KANLinear:
        """A layer of this form with `out_features` outputs, drawn by `generator`."""
        return KANLinear(
            self.in_features,
            out_features,
            self.grid.size,
            self.grid.order,
            (self.grid.low, self.grid.high),
            hidden=self.hidden,
            base_activation="silu" if self.has_base else "none",
            centred=self.centred,
            generator=generator,
        )

    @property
    def scale(self) -> float:
        """The factor on a hidden layer's features."""
        return min(1.0, 5 / math.sqrt(self.in_features)) if self.hidden else 1.0

    @property
    def coefficients(self) -> Tensor:
        """b and c of the formula above, [out, 1 + K, in]: the weight in the units of the curves, base first."""
        return self._packed.unflatten(1, (-1, self.in_features)) * self.scale  # type: ignore[no-untyped-call]

    @property
    def _packed(self) -> Tensor:
        """The weight of the plain form of this layer, [out, (1 + K) * in]."""
        if self.has_base and not self.centred:
            return self.weight
        weight_OFI = self.weight.unflatten(1, (-1, self.in_features))  # type: ignore[no-untyped-call]
        base_OFI, splines_OKI = weight_OFI.tensor_split((int(self.has_base),), 1)
        if not self.has_base:
            base_OFI = torch.zeros_like(splines_OKI[:, :1])
        if self.bias is not None:  # the splines of an input sum to one: a constant added to all moves the whole curve
            mean_OI = torch.einsum("k,oki->oi", normal_means(self.grid).to(self.weight), splines_OKI)
            shift_O1 = (self.bias / (self.in_features * self.scale)).unsqueeze(1)
            splines_OKI = splines_OKI + (shift_O1 - mean_OI).unsqueeze(1)
        return torch.cat([base_OFI, splines_OKI], 1).flatten(1)

    @torch.no_grad()
    def write(self, coefficients_OFI: Tensor) -> None:
        """Set the function to these `coefficients`. Raises ConfigError for a base if the layer has none.

        A centred layer moves the constants of its edges into the bias: the function is the same, the curves are not.
        """
        if not self.has_base and coefficients_OFI[:, 0].any():
            raise ConfigError("the layer has no base", hint="Give coefficients whose first block is zero")
        stored_OFI = coefficients_OFI[:, 1 - self.has_base :]
        self.weight.copy_((stored_OFI / self.scale).flatten(1))
        if self.bias is not None:
            means_K = normal_means(self.grid).to(coefficients_OFI)
            self.bias.copy_(torch.einsum("k,oki->o", means_K, coefficients_OFI[:, 1:]))

    @property
    def constant(self) -> Tensor:
        """The part of the output outside the curves, [out]: zero, because an edge's splines can be any constant."""
        return self.weight.new_zeros(self.out_features)

    @property
    def span(self) -> tuple[float, float]:
        """The ends of the grid, the range in which a curve varies."""
        return self.grid.low, self.grid.high

    def edge_features(self, x: Tensor) -> Tensor:
        """The features that every edge is linear in, [..., 1 + K, in]; the same functions for every input."""
        return edge_features(x, self.grid)

    def features(self, x: Tensor) -> Tensor:
        """The features that the layer is linear in: the output is `features(x) @ weight.T`, plus the bias if any."""
        features_FI = edge_features(x, self.grid)
        if self.centred:
            offset_K1 = normal_means(self.grid).to(x).unsqueeze(1)
            features_FI = torch.cat([features_FI[..., :1, :], features_FI[..., 1:, :] - offset_K1], -2)
        features = features_FI[..., 1 - self.has_base :, :].flatten(-2)
        return features * self.scale if self.hidden else features

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., in] to [..., out]. NaN in a row gives NaN in its outputs.

        Raises DataError for another width or for numbers that are not floating point.
        """
        return self._map(x, self._packed)

    def side_by_side(self, others: Sequence[KANLinear], x: Tensor) -> list[Tensor]:
        """The outputs of this layer and of `others` of its form for the same `x`; splines are evaluated once."""
        layers = [self, *others]
        out = self._map(x, torch.cat([layer._packed for layer in layers]))
        return [part.contiguous() for part in torch.split(out, [layer.out_features for layer in layers], -1)]

    def _map(self, x: Tensor, packed: Tensor) -> Tensor:
        """Map `x` [..., in] by a weight of the plain form; its rows determine the number of outputs."""
        check_input(x, self._row)
        out = F.linear(edge_features(x, self.grid).flatten(-2), packed)
        return out * self.scale if self.hidden else out

    def extra_repr(self) -> str:
        """Widths and grid, as torch prints them."""
        return f"{self.in_features}, {self.out_features}, {self.grid}"
