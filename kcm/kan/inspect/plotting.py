"""Plots of one edge, or of the most important edges, layers from left to right. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from kcm.errors import ConfigError
from kcm.kan.inspect.attribution import importance
from kcm.kan.inspect.curves import CurveLayer, CurveNetwork, edge_curve, layer_inputs

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
