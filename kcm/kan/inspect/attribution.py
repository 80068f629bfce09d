"""Attribution of logits to inputs, and importance of edges."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kcm.errors import DataError
from kcm.kan.inspect.curves import CurveLayer, CurveNetwork, edge_moments, edge_values, layer_inputs


@dataclass(frozen=True)
class Attribution:
    """Contributions of inputs to logits: `contributions` [N, O, I] summed over I, plus `baseline` [O], are the logits.

    An edge of the first layer contributes its change (see `first_changes`) times the slope of its output node. `slopes`
    [N, O, H] are these slopes, for the H outputs of the first layer. In a one-layer network these nodes are the logits.
    """

    contributions: Tensor
    baseline: Tensor
    slopes: Tensor


@torch.no_grad()
def attribution(network: CurveNetwork, x_NI: Tensor) -> Attribution:
    """The contribution of each input to each logit of `x_NI` [N, I].

    For a one-layer network this is exact: a logit is the sum of its edges and of the layer's constant. The constant is
    the baseline, zero for splines. For a deeper network the baseline is the logits of a reference input, all zeros. The
    change of a logit is passed back to the inputs of each hidden node in proportion to the changes they caused in it
    (DeepLIFT's rescale rule, arXiv 1704.02685, section 3.5.1). The sums are exact. The shares are an approximation that
    ignores interactions of inputs, and a poor one if large changes cancel in a node. Raises DataError for inputs of the
    wrong shape.
    """
    layers: Sequence[CurveLayer] = network.kan_layers
    first_NHI = first_changes(network, x_NI)
    slopes_NOH = torch.eye(network.widths[-1]).to(x_NI).expand(len(x_NI), -1, -1)
    if len(layers) == 1:
        return Attribution(first_NHI, layers[0].constant.to(x_NI), slopes_NOH)

    reference_1I = x_NI.new_zeros(1, x_NI.shape[1])
    inputs, references = (layer_inputs(layers, network.curve_inputs(rows)) for rows in (x_NI, reference_1I))
    later_layers = [
        edge_values(layer, of_x) - edge_values(layer, of_reference)
        for layer, of_x, of_reference in zip(layers[1:], inputs[1:], references[1:], strict=True)
    ]
    changes = [first_NHI, *later_layers]
    for above, below in itertools.pairwise(reversed(changes)):
        shares_NOH = torch.einsum("nop,nph->noh", slopes_NOH, above)
        moved_N1H = below.sum(-1).unsqueeze(1)
        slopes_NOH = torch.where(moved_N1H != 0, shares_NOH / torch.where(moved_N1H != 0, moved_N1H, 1), 0)
    contributions_NOI = torch.einsum("noh,nhi->noi", slopes_NOH, first_NHI)
    return Attribution(contributions_NOI, network(reference_1I)[0], slopes_NOH)


@torch.no_grad()
def first_changes(network: CurveNetwork, x_NI: Tensor) -> Tensor:
    """What each edge of the first layer adds, [N, H, I]; in a deeper network, relative to the reference input.

    Raises DataError for inputs of the wrong shape.
    """
    first = network.kan_layers[0]
    if x_NI.dim() != 2 or x_NI.shape[1] != network.widths[0]:
        raise DataError(f"x has shape {tuple(x_NI.shape)}", hint=f"Give rows of {network.widths[0]} features")
    values_NHI = edge_values(first, network.curve_inputs(x_NI))
    if len(network.kan_layers) == 1:
        return values_NHI
    return values_NHI - edge_values(first, network.curve_inputs(x_NI.new_zeros(1, x_NI.shape[1])))


@torch.no_grad()
def importance(network: CurveNetwork, x_NI: Tensor) -> list[Tensor]:
    """The importance of each edge over the rows of `x_NI` [N, I]: per layer [O, I], in units of the logits.

    The score of an output is its standard deviation. A node's score is split over its incoming edges in proportion to
    the standard deviation of their values; a hidden node's score is the sum over its outgoing edges. This is the
    attribution score of KAN 2.0 (arXiv 2408.10205).
    """
    layers: Sequence[CurveLayer] = network.kan_layers
    inputs = layer_inputs(layers, network.curve_inputs(x_NI))
    node_O = layers[-1](inputs[-1]).std(0, correction=0)
    scores: list[Tensor] = []
    for layer, seen_NI in zip(reversed(layers), reversed(inputs), strict=True):
        _, deviation_OI = edge_moments(layer, seen_NI)
        output_O1 = layer(seen_NI).std(0, correction=0).unsqueeze(1)
        scores.append(torch.where(output_O1 > 0, node_O.unsqueeze(1) * deviation_OI / output_O1, 0))
        node_O = scores[-1].sum(0)
    return scores[::-1]
