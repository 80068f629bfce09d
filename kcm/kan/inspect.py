"""Inspection of a KAN: the curves on its edges, attribution of logits to inputs, and drawings by matplotlib."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kcm.errors import ConfigError, DataError
from kcm.kan.layer import KANLinear
from kcm.kan.mixed_splines import MixedSplines
from kcm.kan.network import KAN
from kcm.kan.random_relu import RandomQuadratic, UnitCurves

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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


_INK, _CURVE, _LINE = "#24292f", "#0b63ce", "#9aa4b1"


def plot_edge(layer: CurveLayer, i: int, j: int, x_NI: Tensor | None = None, ax: Axes | None = None) -> Axes:
    """Draw the curve from input `i` to output `j`, and the positions of the probe rows."""
    if ax is None:
        from matplotlib import pyplot

        _, ax = pyplot.subplots(figsize=(4, 3), layout="constrained")
    points, values = edge_curve(layer, i, j, None if x_NI is None else _span(x_NI[:, i]))
    ax.plot(points.cpu(), values.cpu(), color=_CURVE, lw=2, label="curve")
    if x_NI is not None:
        ax.plot(x_NI[:, i].cpu(), [0] * len(x_NI), "|", color=_INK, alpha=0.25, transform=ax.get_xaxis_transform())
    ax.set(xlabel=f"input {i}", ylabel=f"to output {j}")
    ax.spines[["top", "right"]].set_visible(False)
    return ax


def plot_network(
    network: CurveNetwork,
    x_NI: Tensor,
    top: int = 10,
    inputs: Sequence[str] | None = None,
    outputs: Sequence[str] | None = None,
    title: str = "",
) -> Figure:
    """Draw, for each layer, the `top` most important edges on the probe rows `x_NI`, each with its curve.

    Line width shows importance; only nodes that these edges join are drawn. `inputs` names the inputs of the first
    curves, `outputs` the logits. Raises ConfigError if a list of names has the wrong length or `top` is not positive.
    """
    from matplotlib import pyplot

    if top < 1:
        raise ConfigError(f"top = {top}", where="plot_network", hint="Draw at least one edge per layer")
    layers: Sequence[CurveLayer] = network.kan_layers
    scores = importance(network, x_NI)
    names = [_names(inputs, layers[0].in_features, "input"), _names(outputs, network.widths[-1], "output")]
    layer_rows = layer_inputs(layers, network.curve_inputs(x_NI))
    edges = [_top_edges(score_OI, top) for score_OI in scores]
    nodes = _columns(edges)
    height = max(1, *map(len, edges), *map(len, nodes))  # a network of zeros has no edge to draw

    figure, ax = pyplot.subplots(figsize=(2.2 + 3.4 * len(layers), 0.9 + 0.75 * height))
    ax.set(xlim=(-0.35, len(layers) + 0.35), ylim=(-0.5, height - 0.5))
    ax.axis("off")
    ax.set_title(title, color=_INK, fontsize=12)
    levels = [dict(zip(column, _even_levels(len(column), height), strict=True)) for column in nodes]
    for depth, (layer, seen_NI, score_OI) in enumerate(zip(layers, layer_rows, scores, strict=True)):
        start, end = levels[depth], levels[depth + 1]
        # Boxes are drawn in the order of their ends, so that few lines cross.
        sorted_edges = sorted(edges[depth], key=lambda edge, start=start, end=end: start[edge[1]] + end[edge[0]])  # type: ignore[misc]
        for (j, i), level in zip(sorted_edges, _even_levels(len(sorted_edges), height), strict=True):
            weight = float(score_OI[j, i] / score_OI.max())
            _line(ax, (depth, start[i]), (depth + 0.34, level), weight)
            _line(ax, (depth + 0.66, level), (depth + 1, end[j]), weight)
            curve = edge_curve(layer, i, j, _span(seen_NI[:, i]))
            _box(ax, (depth + 0.34, level - 0.33, 0.32, 0.66), *curve, weight)
    _draw_nodes(ax, levels, names)
    figure.tight_layout(pad=0.6)
    return figure


def _draw_nodes(ax: Axes, levels: list[dict[int, float]], names: list[list[str]]) -> None:
    last = len(levels) - 1
    for depth, column in enumerate(levels):
        for node, level in column.items():
            ax.plot(depth, level, "o", color=_INK, ms=7, zorder=3)
            if depth == 0:
                ax.text(depth - 0.06, level, names[0][node], ha="right", va="center", color=_INK)
            if depth == last:
                ax.text(depth + 0.06, level, names[1][node], ha="left", va="center", color=_INK)


def _names(names: Sequence[str] | None, count: int, kind: str) -> list[str]:
    if names is None:
        return [f"{kind} {index}" for index in range(count)]
    if len(names) != count:
        raise ConfigError(f"{len(names)} names for {count} {kind}s", where="plot_network", hint="Name each one once")
    return list(names)


def _top_edges(score_OI: Tensor, top: int) -> list[tuple[int, int]]:
    """(output, input) of the edges with the largest positive scores."""
    flat = score_OI.flatten()
    best = flat.argsort(descending=True)[:top].tolist()
    return [divmod(index, score_OI.shape[1]) for index in best if flat[index] > 0]


def _columns(edges: list[list[tuple[int, int]]]) -> list[list[int]]:
    """The nodes of each layer that a drawn edge enters or leaves, the first on top."""
    connected: list[set[int]] = [set() for _ in range(len(edges) + 1)]
    for depth, layer_edges in enumerate(edges):
        connected[depth] |= {i for _, i in layer_edges}
        connected[depth + 1] |= {j for j, _ in layer_edges}
    return [sorted(column, reverse=True) for column in connected]


def _even_levels(count: int, height: int) -> list[float]:
    """`count` levels spread evenly over `height`."""
    return [(index + 0.5) * height / count - 0.5 for index in range(count)]


def _span(values_N: Tensor) -> Tensor:
    return torch.linspace(float(values_N.min()), float(values_N.max()), 101)


def _line(ax: Axes, start: tuple[float, float], end: tuple[float, float], weight: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    middle = (start[0] + end[0]) / 2
    path = Path(
        [start, (middle, start[1]), (middle, end[1]), end], [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4]
    )
    ax.add_patch(PathPatch(path, fc="none", ec=_LINE, lw=0.6 + 4 * weight, alpha=0.35 + 0.55 * weight, zorder=1))


def _box(ax: Any, bounds: tuple[float, float, float, float], points: Tensor, values: Tensor, weight: float) -> None:
    inset = ax.inset_axes(bounds, transform=ax.transData, zorder=2)
    inset.plot(points.cpu(), values.cpu(), color=_CURVE, lw=1.2 + weight)
    inset.set(xticks=[], yticks=[], facecolor="white")
    inset.margins(0.08, 0.14)
    for spine in inset.spines.values():
        spine.set(color=_LINE, lw=0.8)
