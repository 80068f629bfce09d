"""The curves on the edges of a layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from kcm.errors import ConfigError
from kcm.kan.layer import KANLinear
from kcm.kan.mixed_splines import MixedSplines
from kcm.kan.network import KAN
from kcm.kan.random_relu import RandomQuadratic, UnitCurves

CurveNetwork = KAN | MixedSplines | RandomQuadratic  # its layers are `kan_layers`, the first over `curve_inputs`
CurveLayer = KANLinear | UnitCurves  # an output is `constant` plus a curve of each input


@torch.no_grad()
def edge_curve(layer: CurveLayer, i: int, j: int, points_P: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The curve from input `i` to output `j`: points [P], by default 201 over the span, and its values there [P].

    Raises ConfigError for an edge that does not exist.
    """
    for name, index, count in (("i", i, layer.in_features), ("j", j, layer.out_features)):
        if not 0 <= index < count:
            raise ConfigError(f"{name} = {index}", where="edge_curve", hint=f"It must be from 0 to {count - 1}")
    if points_P is None:
        points_P = torch.linspace(*layer.span, 201)
    points_P = points_P.to(layer.constant)
    features_PF = layer.edge_features(points_P.unsqueeze(1)).squeeze(-1)
    return points_P, features_PF @ layer.coefficients[j, :, i]


def edge_values(layer: CurveLayer, x_NI: Tensor) -> Tensor:
    """The value of every edge, [N, O, I]; the sum over the inputs plus the constant is `layer(x_NI)`."""
    return torch.einsum("nfi,ofi->noi", layer.edge_features(x_NI), layer.coefficients)


@torch.no_grad()
def edge_moments(layer: CurveLayer, x_NI: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation over the rows of every edge's value, each [O, I]; never holds [N, O, I] in memory."""
    features_NFI = layer.edge_features(x_NI).double()
    mean_FI = features_NFI.mean(0)
    centred_NFI = features_NFI - mean_FI
    covariance_IFG = torch.einsum("nfi,ngi->ifg", centred_NFI, centred_NFI) / len(x_NI)
    coefficients_OFI = layer.coefficients.double()
    mean_OI = torch.einsum("fi,ofi->oi", mean_FI, coefficients_OFI)
    variance_OI = torch.einsum("ofi,ifg,ogi->oi", coefficients_OFI, covariance_IFG, coefficients_OFI)
    return mean_OI.to(x_NI.dtype), variance_OI.clamp_min(0).sqrt().to(x_NI.dtype)


@torch.no_grad()
def layer_inputs(layers: Sequence[CurveLayer], x_NI: Tensor) -> list[Tensor]:
    """The inputs of each layer, given the inputs `x_NI` of the first layer."""
    inputs = [x_NI]
    for layer in layers[:-1]:
        inputs.append(layer(inputs[-1]))
    return inputs
