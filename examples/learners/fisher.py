"""Squared gradients row by row, summed: the diagonal of the Fisher information, without a gradient per row in memory.

A layer that is linear in its weights has, for one row, the gradient g a^T, with a the features that the weights meet
and g the gradient at the layer's output. Its squares are g^2 (a^2)^T, so that a sum over rows is one matrix product:
exact, and as cheap as the gradient itself.
Shapes: N rows, D inputs, C labels, O outputs and F features of a layer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from kcm.kan.layer import KANLinear
from kcm.kan.random_relu import RandomReLU

FisherKind = Literal["exact", "empirical"]


@torch.enable_grad()
def sum_squared_gradients(
    network: nn.Module,
    x_ND: Tensor,
    labels_N: Tensor,
    weights_N: Tensor,
    active_C: Tensor,
    kind: FisherKind,
    base_NC: Tensor | float = 0.0,
) -> dict[str, Tensor]:
    """By parameter of `network`, float64: sum_n w_n sum_c q_nc (d log p(c | x_n) / d theta)^2.

    `exact` takes q_nc = p(c | x_n), the network's own answer; `empirical` takes q_nc = 1 for the true label
    (Kunstner et al., arXiv 1905.12558, tell what that changes). The softmax is over the labels in `active_C` (bool), of
    the network's logits on top of `base_NC`.
    TypeError for a network with parameters outside of KANLinear, RandomReLU and nn.Linear layers.
    """
    with _recording(network) as layers:
        logits_NC = functional_call(network, {name: p.detach() for name, p in network.named_parameters()}, (x_ND,))
    log_p_NC = F.log_softmax((logits_NC + base_NC)[:, active_C], -1)
    outputs = [layer.output_NO for layer in layers]
    squares = [torch.zeros_like(output_NO) for output_NO in outputs]
    for target_N, share_N in _targets(log_p_NC.detach(), active_C.cumsum(0)[labels_N] - 1, kind):
        chosen_N1 = log_p_NC.gather(1, target_N.unsqueeze(1))
        gradients = torch.autograd.grad(chosen_N1.sum(), outputs, retain_graph=True)
        for square_NO, gradient_NO in zip(squares, gradients, strict=True):
            square_NO.addcmul_(gradient_NO.square(), (weights_N * share_N).unsqueeze(1))
    found = {
        name: value
        for layer, square_NO in zip(layers, squares, strict=True)
        for name, value in layer.by_parameter(square_NO)
    }
    if missing := sorted({name for name, _ in network.named_parameters()} - found.keys()):
        raise TypeError(f"no rule for the squared gradients of {missing}")
    return found


def _targets(log_p_NC: Tensor, labels_N: Tensor, kind: FisherKind) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of a label for every row, and the weight q that it has there."""
    if kind == "empirical":
        yield labels_N, torch.ones_like(log_p_NC[:, 0])
        return
    for label, share_N in enumerate(log_p_NC.exp().unbind(1)):
        yield torch.full_like(labels_N, label), share_N


@dataclass(frozen=True)
class _Layer:
    """A layer by its name, the features that its weights met, and its output, which gradients flow back to."""

    name: str
    has_bias: bool
    features_NF: Tensor
    output_NO: Tensor

    def by_parameter(self, square_NO: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Squares of the weight's gradients, and of the bias's, from those at the output."""
        prefix = f"{self.name}." if self.name else ""
        yield f"{prefix}weight", (square_NO.T @ self.features_NF.square()).double()
        if self.has_bias:
            yield f"{prefix}bias", square_NO.sum(0).double()


@contextmanager
def _recording(network: nn.Module) -> Iterator[list[_Layer]]:
    """A list that fills as the layers of `network` are called."""
    layers: list[_Layer] = []

    def record(name: str, module: nn.Module, inputs: tuple[Tensor], output_NO: Tensor) -> Tensor:
        x_NI = inputs[0].detach()
        features_NF = module.features(x_NI) if isinstance(module, KANLinear | RandomReLU) else x_NI
        if not output_NO.requires_grad:  # the first layer: its weights are constants here
            output_NO.requires_grad_()
        layers.append(_Layer(name, getattr(module, "bias", None) is not None, features_NF, output_NO))
        return output_NO

    handles = [
        module.register_forward_hook(partial(record, name))
        for name, module in network.named_modules()
        if isinstance(module, KANLinear | RandomReLU | nn.Linear)
    ]
    try:
        yield layers
    finally:
        for handle in handles:
            handle.remove()
