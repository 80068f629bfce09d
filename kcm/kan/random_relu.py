"""Frozen random units with trained weights: the ReLUs of a closed-form MLP, a control, and the squares of a KAN."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.errors import ConfigError
from kcm.kan.network import KAN

_CLAMP = 4.0  # standard deviations of a projection beyond which its square stays constant


def random_directions(count: int, dim: int, generator: torch.Generator) -> Tensor:
    """`count` unit vectors [count, dim], uniform on the sphere, orthogonal within every block of `dim`.

    Features of orthogonal directions vary less around their kernel than independent ones (arXiv 1610.09072). The last
    directions are cached: a run builds the same networks some twenty times, and drawing took a quarter of the CPU time
    of a run on 2,000 rows.
    """
    directions, state = _draw(count, dim, generator.get_state().numpy().tobytes())
    generator.set_state(state)
    return directions.clone()


@lru_cache(maxsize=8)
def _draw(count: int, dim: int, state: bytes) -> tuple[Tensor, Tensor]:
    """The directions drawn by a generator in this state, and the generator's state afterwards."""
    generator = torch.Generator()
    generator.set_state(torch.frombuffer(bytearray(state), dtype=torch.uint8))
    directions = torch.empty(count, dim)
    for block in directions.split(dim):  # type: ignore[no-untyped-call]
        nn.init.orthogonal_(block, generator=generator)
    return directions, generator.get_state()


class RandomReLU(nn.Module):
    """y = W relu(R x) + offset: a random layer R that is never trained, and the trainable `weight` W [out, width].

    The random-features baseline of RanPAC (arXiv 2307.02251, section 4). The `offset` [out] starts at zero and has no
    gradient; a closed form stores the constants of its classes in it. The last `num_linear` inputs enter no projection:
    the output is linear in them.
    """

    projection: Tensor
    offset: Tensor

    def __init__(self, in_features: int, width: int, out_features: int, *, seed: int = 0, num_linear: int = 0) -> None:
        super().__init__()
        self.num_linear = num_linear
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("projection", random_directions(width, in_features - num_linear, generator))
        num_features = self.num_features(in_features, width)
        self.weight = nn.Parameter(self.drawn_weight(out_features, num_features, generator))
        self.register_buffer("offset", torch.zeros(out_features))

    @classmethod
    def matching(cls, network: KAN | RandomReLU, *, seed: int = 0) -> RandomReLU:
        """The network with exactly as many coefficients as a one-layer `network`; ConfigError for more layers."""
        layers = [network] if isinstance(network, RandomReLU) else network.kan_layers
        if len(layers) > 1:
            widths = list(network.widths)
            raise ConfigError(f"widths = {widths}", hint="A random layer is matched to a KAN of one layer")
        num_outputs, num_coefficients = layers[0].weight.shape
        num_linear = network.num_linear if isinstance(network, RandomReLU) else 0
        width = num_coefficients - num_linear
        return cls(network.widths[0], width, num_outputs, seed=seed, num_linear=num_linear)

    @staticmethod
    def drawn_weight(out_features: int, num_features: int, generator: torch.Generator) -> Tensor:
        """The initial weight for `out_features` outputs."""
        deviation: float = num_features**-0.5
        return torch.randn(out_features, num_features, generator=generator) * deviation

    def num_features(self, in_features: int, width: int) -> int:
        """The number of features that the output is linear in: one per random direction and linear input."""
        return width + self.num_linear

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs and outputs."""
        return self.projection.shape[1] + self.num_linear, self.weight.shape[0]

    def projected(self, x: Tensor) -> Tensor:
        """The part of `x` [..., in] that is projected: all but the linear inputs."""
        return x[..., : self.projection.shape[1]]

    def projections(self, x: Tensor) -> Tensor:
        """The random projections of `x` [..., in], [..., width], in its precision."""
        return F.linear(self.projected(x), self.projection.to(x.dtype))

    def features(self, x: Tensor) -> Tensor:
        """The features that the output is linear in, [..., num_features], in the precision of `x` [..., in]."""
        units = self.projections(x).relu()
        if not self.num_linear:
            return units
        width, num_projected = self.projection.shape
        return torch.cat([units, math.sqrt(width / num_projected / 2) * x[..., num_projected:]], -1)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., in] to [..., out]."""
        return F.linear(self.features(x), self.weight, self.offset)


class ProjectedCurves(RandomReLU, ABC):
    """y = W phi(x) + offset with phi(x) = [sqrt(P / D) x, f_1(v), ..., f_J(v), sqrt(P)] / 2 for P projections v.

    A KAN layer over v whose linear parts are folded: lines in P projections are a linear map of the D inputs. So a
    label needs D + J P + 1 coefficients. The factors give the linear, the bent and the constant part equal weight under
    a ridge penalty.

    It can be inspected as a KAN: `kan_layers` is one layer of D lines and P curves over `curve_inputs`.
    """

    num_curves = 1  # J, the functions of a projection
    span = -_CLAMP, _CLAMP  # in which they vary

    @abstractmethod
    def bent(self, v: Tensor) -> Tensor:
        """f_1 to f_J of projections `v` [..., P], [..., J, P]."""

    def num_features(self, in_features: int, width: int) -> int:
        """The inputs, J curves of each projection, and a constant."""
        return in_features + self.num_curves * width + 1

    def features(self, x: Tensor) -> Tensor:
        """The features that the output is linear in, [..., num_features], in the precision of `x` [..., in]."""
        width, num_projected = self.projection.shape
        curves = self.bent(self.projections(x)).flatten(-2)
        constant = x.new_full((*x.shape[:-1], 1), math.sqrt(width))
        return 0.5 * torch.cat([math.sqrt(width / num_projected) * x, curves, constant], -1)

    @property
    def kan_layers(self) -> list[UnitCurves]:
        """The one layer of curves over `curve_inputs`: a line for each input, a curve for each projection.

        A curve shows its change from v = 0, where it is zero; the constant holds the rest.
        """
        (width, num_projected), (num_inputs, _) = self.projection.shape, self.widths
        sizes = [num_inputs, self.num_curves * width, 1]
        lines_OD, bent_OF, constant_O1 = torch.split(0.5 * self.weight.detach(), sizes, 1)
        bent_OJP = bent_OF.unflatten(1, (-1, width))  # type: ignore[no-untyped-call]
        at_zero_J = self.bent(bent_OJP.new_zeros(1))[:, 0]
        coefficients_OFI = bent_OJP.new_zeros(len(bent_OJP), 1 + self.num_curves, num_inputs + width)
        coefficients_OFI[:, 0, :num_inputs] = math.sqrt(width / num_projected) * lines_OD
        coefficients_OFI[:, 1:, num_inputs:] = bent_OJP
        constant_O = math.sqrt(width) * constant_O1[:, 0] + torch.einsum("j,ojp->o", at_zero_J, bent_OJP) + self.offset
        return [UnitCurves(coefficients_OFI, constant_O, self.span, self._line_and_curves)]

    def _line_and_curves(self, z: Tensor) -> Tensor:
        """The functions of every edge, [..., 1 + J, I] for `z` [..., I]."""
        return torch.cat([z.unsqueeze(-2), self.bent(z) - self.bent(z.new_zeros(1))], -2)

    def curve_inputs(self, x: Tensor) -> Tensor:
        """The inputs of the curves, [..., in + width]: the inputs `x` [..., in], then their projections."""
        return torch.cat([x, self.projections(x)], -1)

    def passed_back(self, shares: Tensor, x: Tensor) -> Tensor:
        """The shares of the curves at `x` [..., in], [..., in + width], as shares of the inputs [..., in].

        A curve's share is split in proportion to each input's part of the projection (DeepLIFT's rescale rule).
        """
        of_inputs, of_projections = torch.split(shares, [x.shape[-1], len(self.projection)], -1)
        v = self.projections(x)
        slopes = torch.where(v != 0, of_projections / torch.where(v != 0, v, 1), 0)
        return of_inputs + F.pad(self.projected(x) * (slopes @ self.projection.to(x.dtype)), (0, self.num_linear))


class RandomQuadratic(ProjectedCurves):
    """A KAN layer of one interval and degree 2 over P random projections: f(v) = clamp(v, -4, 4)^2."""

    def bent(self, v: Tensor) -> Tensor:
        """The squares."""
        return v.clamp(-_CLAMP, _CLAMP).square().unsqueeze(-2)


@dataclass(frozen=True)
class UnitCurves:
    """y_o = constant_o + sum_i sum_f coefficients_ofi functions_f(z_i), with the interface of `KANLinear`'s curves.

    `constant` [out] is the part outside the curves. This form is for inspection only: the network computes the same
    from fewer numbers.
    """

    coefficients: Tensor
    constant: Tensor
    span: tuple[float, float]
    edge_features: Callable[[Tensor], Tensor]  # that every edge is linear in, [..., in] to [..., functions, in]

    @property
    def in_features(self) -> int:
        """Number of inputs z."""
        return self.coefficients.shape[2]

    @property
    def out_features(self) -> int:
        """Number of outputs y."""
        return self.coefficients.shape[0]

    def __call__(self, z: Tensor) -> Tensor:
        """Map `z` [..., in] to [..., out]."""
        return torch.einsum("...fi,ofi->...o", self.edge_features(z), self.coefficients) + self.constant
