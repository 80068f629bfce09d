"""Lines and clipped parabolas as a layer of curves: the form in which random quadratic units are read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class QuadraticLayer:
    """y_o = constant_o + sum_i [ a_oi z_i + b_oi clamp(z_i, span)^2 ], told as `KANLinear` tells its curves.

    `coefficients` [out, 2, in] holds a and b, `constant` [out] what no curve brings. It is for reading, not for
    answering: `RandomQuadratic` computes the same from fewer numbers.
    """

    coefficients: Tensor
    constant: Tensor
    span: tuple[float, float]

    @property
    def in_features(self) -> int:
        """Number of inputs z."""
        return self.coefficients.shape[2]

    @property
    def out_features(self) -> int:
        """Number of outputs y."""
        return self.coefficients.shape[0]

    def edge_features(self, z: Tensor) -> Tensor:
        """What every edge is linear in, [..., 2, in] for `z` [..., in], by the same functions for every input."""
        return torch.stack([z, z.clamp(*self.span).square()], -2)

    def __call__(self, z: Tensor) -> Tensor:
        """Map `z` [..., in] to [..., out]."""
        return torch.einsum("...fi,ofi->...o", self.edge_features(z), self.coefficients) + self.constant
