"""The inputs of the regression of a network that is linear in its weights, in float64.

Shapes: N rows, I inputs of the network, K splines of an input, C labels, P inputs of the regression.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch
from scipy.linalg import helmert
from torch import Tensor, nn

from kcm.kan import KAN, MLP, KANLinear, RandomReLU


class Design(Protocol):
    """The design matrix of a network."""

    @property
    def num_inputs(self) -> int:
        """Inputs of the regression, P."""
        ...

    def inputs(self, x_NI: Tensor) -> Tensor:
        """Inputs of the regression, [N, P]."""
        ...

    def write(self, solution_CP: Tensor) -> None:
        """Set the weights of the network from those of the regression."""
        ...


class SplineDesign:
    """A single KAN layer, without the constants that its splines repeat.

    The splines of every input sum to one. Turned by an orthogonal matrix, they are K - 1 contrasts and a constant, and
    ridge regression does not see the turn. The I constants are equal, and act as one that is sqrt(I) times as large.
    So I K + 1 inputs give the very solution that (1 + K) I give, and G is no longer singular by construction.
    """

    def __init__(self, layer: KANLinear) -> None:
        self.layer = layer
        num_splines = layer.grid.num_basis
        self._turn_LK = torch.from_numpy(helmert(num_splines))  # L = K - 1 orthonormal rows, each of which sums to 0
        self._constant = math.sqrt(layer.in_features / num_splines)

    @property
    def num_inputs(self) -> int:
        """I K + 1."""
        return self.layer.in_features * self.layer.grid.num_basis + 1

    def inputs(self, x_NI: Tensor) -> Tensor:
        """The base, the contrasts and the constant."""
        features_NFI = self.layer.features(x_NI).unflatten(1, (-1, self.layer.in_features))  # type: ignore[no-untyped-call]
        contrasts_NLI = torch.matmul(self._turn_LK, features_NFI[:, 1:])
        constant_N1 = torch.full((len(x_NI), 1), self._constant, dtype=torch.float64)
        return torch.cat([features_NFI[:, 0], contrasts_NLI.flatten(1), constant_N1], 1)

    @torch.no_grad()
    def write(self, solution_CP: Tensor) -> None:
        """Turn contrasts and constant back into splines."""
        inputs = self.layer.in_features
        base_CI, contrasts_CL, constant_C1 = solution_CP.tensor_split((inputs, solution_CP.shape[1] - 1), 1)
        contrasts_CLI = contrasts_CL.unflatten(1, (-1, inputs))  # type: ignore[no-untyped-call]
        share_C11 = constant_C1[:, :, None] / math.sqrt(inputs * self.layer.grid.num_basis)
        splines_CKI = torch.matmul(self._turn_LK.T, contrasts_CLI) + share_C11
        self.layer.weight.copy_(torch.cat([base_CI, splines_CKI.flatten(1)], 1))


class UnitDesign:
    """A layer of frozen random units, unchanged."""

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
    def write(self, solution_CP: Tensor) -> None:
        """The weights on the units."""
        self.network.weight.copy_(solution_CP)


class LinearDesign:
    """A linear layer: its inputs, and a one for the bias."""

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
    def write(self, solution_CP: Tensor) -> None:
        """Weights and bias."""
        self.layer.weight.copy_(solution_CP[:, :-1])
        self.layer.bias.copy_(solution_CP[:, -1])


def design_of(network: nn.Module) -> Design | None:
    """The design of a network; None for one that is not linear in its weights."""
    if isinstance(network, RandomReLU):
        return UnitDesign(network)
    if isinstance(network, KAN) and len(network.kan_layers) == 1:
        return SplineDesign(network.kan_layers[0])
    if isinstance(network, MLP) and len(network.layers) == 1 and isinstance(layer := network.layers[0], nn.Linear):
        return LinearDesign(layer)
    return None
