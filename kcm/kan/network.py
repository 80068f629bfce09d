"""A stack of KAN layers."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from kcm.errors import ConfigError
from kcm.kan.layer import BaseActivation, KANLinear


class KAN(nn.Module):
    """Kolmogorov–Arnold network (arXiv 2404.19756) of the given widths: inputs, hidden layers, outputs.

    `KAN([384, 150])` is a single layer; `KAN([384, 64, 150])` has one hidden layer. Equal seeds give equal weights.
    `base_activation` and `centred` apply to every layer, `zero_start` to the last; see KANLinear.
    """

    def __init__(
        self,
        widths: Sequence[int],
        grid_size: int = 5,
        spline_order: int = 3,
        grid_range: tuple[float, float] = (-3.0, 3.0),
        *,
        base_activation: BaseActivation = "silu",
        centred: bool = False,
        zero_start: bool = False,
        seed: int = 0,
    ) -> None:
        """Raise ConfigError for fewer than two widths, or a width, grid or order that is out of range."""
        super().__init__()
        if len(widths) < 2:
            raise ConfigError(f"widths = {list(widths)}", hint="Give at least the inputs and the outputs")
        generator = torch.Generator().manual_seed(seed)
        last = len(widths) - 2
        self.layers = nn.ModuleList(
            KANLinear(
                *pair,
                grid_size,
                spline_order,
                grid_range,
                hidden=index < last,
                base_activation=base_activation,
                centred=centred,
                zero_start=zero_start and index == last,
                generator=generator,
            )
            for index, pair in enumerate(pairwise(widths))
        )

    @property
    def widths(self) -> tuple[int, ...]:
        """Inputs, hidden widths and outputs."""
        layers = self.kan_layers
        return (layers[0].in_features, *(layer.out_features for layer in layers))

    @property
    def kan_layers(self) -> list[KANLinear]:
        """The layers, with their type."""
        return [layer for layer in self.layers if isinstance(layer, KANLinear)]

    def curve_inputs(self, x: Tensor) -> Tensor:
        """The inputs of the first layer's curves: `x` itself."""
        return x

    def passed_back(self, shares: Tensor, x: Tensor) -> Tensor:
        """The shares of the first layer's curves as shares of the inputs, which are the same."""
        return shares

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., widths[0]] to logits [..., widths[-1]]."""
        for layer in self.layers:
            x = layer(x)
        return x

    def side_by_side(self, others: Sequence[KAN], x: Tensor) -> list[Tensor]:
        """The outputs of this network and of `others` of its form for the same `x`; first layers run side by side."""
        networks = [self, *others]
        first, *other_layers = (network.kan_layers[0] for network in networks)
        outputs = first.side_by_side(other_layers, x)
        for number, network in enumerate(networks):
            for layer in network.kan_layers[1:]:
                outputs[number] = layer(outputs[number])
        return outputs
