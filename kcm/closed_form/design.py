"""The inputs of the regression of a network that is linear in its weights, in float64.

Shapes: N rows, I inputs of the network, K splines of an input, C labels, P inputs of the regression.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from kcm.kan import KAN, MLP, KANLinear, RandomReLU
from kcm.kan.basis import edge_features


class SplineDesign:
    """A single KAN layer, without the constants that its splines repeat.

    The splines of every input sum to one. Turned by an orthogonal matrix, they are K - 1 contrasts and a constant, and
    ridge regression does not see the turn. The I constants are equal, and act as one that is sqrt(I) times as large.
    So I K + 1 inputs give the very solution that (1 + K) I give, and G is no longer singular by construction. A centred
    layer is solved for as if it were plain: its bias takes the constants up.
    """

    exchangeable: ClassVar[bool] = False  # whether any half of the inputs approximates the kernel of all

    def __init__(self, layer: KANLinear) -> None:
        self.layer = layer
        num_splines = layer.grid.num_basis
        self._turn_LK = _contrasts(num_splines).to(layer.weight.device)
        self._num_base = layer.in_features if layer.has_base else 0
        self._constant = math.sqrt(layer.in_features / num_splines)

    @property
    def num_inputs(self) -> int:
        """I K + 1 with a base, I (K - 1) + 1 without."""
        return self._num_base + self.layer.in_features * (self.layer.grid.num_basis - 1) + 1

    def inputs(self, x_NI: Tensor) -> Tensor:
        """The base, the contrasts and the constant."""
        features_NFI = edge_features(x_NI, self.layer.grid)
        contrasts_NLI = torch.matmul(self._turn_LK, features_NFI[:, 1:])
        constant_N1 = x_NI.new_full((len(x_NI), 1), self._constant)
        base_NI = features_NFI[:, 0, : self._num_base]
        return torch.cat([base_NI, contrasts_NLI.flatten(1), constant_N1], 1)

    @torch.no_grad()
    def write(self, solution_CP: Tensor, offset_C: Tensor) -> None:
        """Turn contrasts and constant back into splines."""
        inputs = self.layer.in_features
        base_CB, contrasts_CL, constant_C1 = solution_CP.tensor_split((self._num_base, solution_CP.shape[1] - 1), 1)
        contrasts_CLI = contrasts_CL.unflatten(1, (-1, inputs))  # type: ignore[no-untyped-call]
        constant_C1 = constant_C1 + offset_C[:, None] / self._constant
        share_C11 = constant_C1[:, :, None] / math.sqrt(inputs * self.layer.grid.num_basis)
        splines_CKI = torch.matmul(self._turn_LK.T, contrasts_CLI) + share_C11
        base_C1I = base_CB.unsqueeze(1) if self.layer.has_base else torch.zeros_like(splines_CKI[:, :1])
        self.layer.write(torch.cat([base_C1I, splines_CKI], 1))

    def written(self) -> list[Tensor]:
        """Weight, and bias if there is one."""
        return list(self.layer.parameters())


class UnitDesign:
    """A layer of frozen random units, unchanged."""

    exchangeable: ClassVar[bool] = True

    def __init__(self, network: RandomReLU) -> None:
        self.network = network

    @property
    def num_inputs(self) -> int:
        """One input for each unit."""
        return self.network.weight.shape[1]

    def inputs(self, x_NI: Tensor) -> Tensor:
        """The units' values."""
        return self.network.features(x_NI)

    @torch.no_grad()
    def write(self, solution_CP: Tensor, offset_C: Tensor) -> None:
        """The weights on the units, and the offset."""
        self.network.weight.copy_(solution_CP)
        self.network.offset.copy_(offset_C)

    def written(self) -> list[Tensor]:
        """Weight and offset."""
        return [self.network.weight, self.network.offset]


class LinearDesign:
    """A linear layer: its inputs, and a one for the bias."""

    exchangeable: ClassVar[bool] = False

    def __init__(self, layer: nn.Linear) -> None:
        self.layer = layer

    @property
    def num_inputs(self) -> int:
        """I + 1."""
        return self.layer.in_features + 1

    def inputs(self, x_NI: Tensor) -> Tensor:
        """The inputs and the one."""
        return torch.cat([x_NI, x_NI.new_ones(len(x_NI), 1)], 1)

    @torch.no_grad()
    def write(self, solution_CP: Tensor, offset_C: Tensor) -> None:
        """Weights and bias."""
        self.layer.weight.copy_(solution_CP[:, :-1])
        self.layer.bias.copy_(solution_CP[:, -1] + offset_C)

    def written(self) -> list[Tensor]:
        """Weights and bias."""
        return list(self.layer.parameters())


Design = SplineDesign | UnitDesign | LinearDesign
"""The design matrix of a network; `write` fills the tensors that are `written` from weights of the regression."""


def design_of(network: nn.Module) -> Design | None:
    """The design of a network; None if it is not linear in its weights."""
    if isinstance(network, RandomReLU):
        return UnitDesign(network)
    if isinstance(network, KAN) and len(network.kan_layers) == 1:
        return SplineDesign(network.kan_layers[0])
    if isinstance(network, MLP) and len(network.layers) == 1 and isinstance(layer := network.layers[0], nn.Linear):
        return LinearDesign(layer)
    return None


def _contrasts(num_splines: int) -> Tensor:
    """K - 1 orthonormal rows, each of which sums to 0: Helmert's matrix without its first row, float64 [K - 1, K]."""
    below_KK = torch.ones(num_splines, num_splines, dtype=torch.float64).tril(-1)
    count_K = below_KK.sum(1)
    return ((below_KK - count_K.diag()) / (count_K * (count_K + 1)).sqrt()[:, None])[1:]
