"""The control: a multi-layer perceptron with the KAN's interface and, if requested, its parameter count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from kcm.kan.network import KAN
from kcm.kan.random_relu import RandomReLU


def num_parameters(module: nn.Module) -> int:
    """Count the trainable parameters of `module`."""
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


class MLP(nn.Module):
    """Linear layers with SiLU between them, the activation of a KAN's base branch."""

    def __init__(self, widths: Sequence[int], *, seed: int = 0) -> None:
        super().__init__()
        self.widths = tuple(widths)
        generator = torch.Generator().manual_seed(seed)
        self.layers = nn.ModuleList(drawn_linear(*pair, generator) for pair in itertools.pairwise(widths))

    @classmethod
    def matching(cls, kan: KAN | RandomReLU, *, seed: int = 0) -> MLP:
        """The MLP whose parameter count is closest to the count of `kan`.

        It has as many layers as the KAN, and all hidden layers have the same width. A KAN of a single layer is matched
        by an MLP with one hidden layer, because a linear map has no width to adjust.
        """
        num_inputs, *hidden, num_outputs = kan.widths
        depth, target = max(1, len(hidden)), num_parameters(kan)
        # (depth - 1) h^2 + (inputs + depth + outputs) h + outputs = target
        square, linear, constant = depth - 1, num_inputs + depth + num_outputs, num_outputs - target
        root = -2 * constant / (linear + math.sqrt(max(0, linear**2 - 4 * square * constant)))
        candidates = {max(1, math.floor(root)), max(1, math.ceil(root))}
        width = min(candidates, key=lambda h: abs(square * h * h + linear * h + constant))
        return cls([num_inputs, *[width] * depth, num_outputs], seed=seed)

    def forward(self, x: Tensor) -> Tensor:
        """Map `x` [..., widths[0]] to logits [..., widths[-1]]."""
        first, *later_layers = self.layers
        x = first(x)
        for layer in later_layers:
            x = layer(F.silu(x))
        return x


def drawn_linear(in_features: int, out_features: int, generator: torch.Generator) -> nn.Linear:
    """A linear layer drawn by torch's own rule, U(-1/sqrt(in), 1/sqrt(in)), from `generator`."""
    with torch.random.fork_rng(devices=[]):  # leaves torch's own state alone; on `meta` it would import sympy, 1 s
        layer = nn.Linear(in_features, out_features)
    bound = in_features**-0.5
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer
