"""Pruning: unimportant edges become constants, hidden nodes without edges are removed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from kcm.errors import ConfigError
from kcm.kan.basis import Curves
from kcm.kan.inspect.attribution import importance
from kcm.kan.inspect.curves import edge_moments, layer_inputs
from kcm.kan.layer import KANLinear
from kcm.kan.network import KAN


@dataclass(frozen=True)
class Pruned:
    """A smaller network, the number of its live edges, and what it cost on the probe rows.

    `change` is the root mean square change of the logits; the accuracies are None where no labels were given.
    """

    network: KAN
    num_edges: int
    change: float
    accuracy_before: float | None
    accuracy_after: float | None


@torch.no_grad()
def prune(network: KAN, x_NI: Tensor, threshold: float, labels_N: Tensor | None = None) -> Pruned:
    """Drop the edges whose importance on `x_NI` is below `threshold` times the largest of their layer.

    A dropped edge is replaced by its mean over the rows, so that a removed curve leaves no shift. Hidden nodes that no
    live edge enters or none leaves are removed; inputs and outputs stay. `network` itself is not changed. A dropped
    edge is not frozen: training the pruned network further may bring it back. Raises ConfigError for a threshold
    outside [0, 1), or one that leaves a layer without edges.
    """
    if not 0 <= threshold < 1:
        raise ConfigError(f"threshold = {threshold}", where="prune", hint="It must be at least 0 and below 1")
    kept = _settle(
        [(score_OI > 0) & (score_OI >= threshold * score_OI.max()) for score_OI in importance(network, x_NI)]
    )
    if not all(kept_OI.any() for kept_OI in kept):
        raise ConfigError(f"threshold = {threshold} removes every edge of a layer", where="prune", hint="Lower it")

    layers = network.kan_layers
    alive = [
        x_NI.new_ones(layers[0].in_features, dtype=torch.bool),
        *(kept_OI.any(1) for kept_OI in kept[:-1]),
        x_NI.new_ones(layers[-1].out_features, dtype=torch.bool),
    ]
    smaller = KAN.from_layers(
        [
            _between(layer, seen_NI, kept_OI, alive_I, alive_O)
            for layer, seen_NI, kept_OI, (alive_I, alive_O) in zip(
                layers, layer_inputs(layers, x_NI), kept, pairwise(alive), strict=True
            )
        ]
    )
    before_NO, after_NO = network(x_NI), smaller(x_NI)
    return Pruned(
        network=smaller,
        num_edges=sum(int(kept_OI.sum()) for kept_OI in kept),
        change=(after_NO - before_NO).square().mean().sqrt().item(),
        accuracy_before=None if labels_N is None else _accuracy(before_NO, labels_N),
        accuracy_after=None if labels_N is None else _accuracy(after_NO, labels_N),
    )


def _settle(kept: list[Tensor]) -> list[Tensor]:
    """Drop, until nothing changes, the edges of hidden nodes that no kept edge enters or none leaves."""
    while True:
        settled = [kept_OI.clone() for kept_OI in kept]
        for incoming_HI, outgoing_OH in pairwise(settled):
            alive_H = incoming_HI.any(1) & outgoing_OH.any(0)
            incoming_HI &= alive_H.unsqueeze(1)
            outgoing_OH &= alive_H
        if all(torch.equal(old, new) for old, new in zip(kept, settled, strict=True)):
            return settled
        kept = settled


def _between(layer: KANLinear, x_NI: Tensor, kept_OI: Tensor, alive_I: Tensor, alive_O: Tensor) -> KANLinear:
    """The layer between the nodes that stay, with each output's dropped edges gathered into one constant."""
    mean_OI, _ = edge_moments(layer, x_NI)
    constant_O = (mean_OI * ~kept_OI).sum(1)[alive_O]
    coefficients_OFI = (layer.coefficients * kept_OI.unsqueeze(1))[alive_O][:, :, alive_I]
    # Splines sum to one: what is added to all coefficients of an edge is added to its curve. A live edge carries the
    # constant where the output has one.
    carrier_O = kept_OI[alive_O][:, alive_I].int().argmax(1)
    coefficients_OFI[torch.arange(len(carrier_O)), 1:, carrier_O] += constant_O.unsqueeze(1)
    return KANLinear.from_curves(Curves(coefficients_OFI, layer.grid), like=layer)


def _accuracy(logits_NO: Tensor, labels_N: Tensor) -> float:
    return (logits_NO.argmax(-1) == labels_N).float().mean().item()
