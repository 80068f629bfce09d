"""The picture shows what matters and nothing else."""

import matplotlib
import pytest
import torch

from kcm.kan import KAN, KANLinear, RandomQuadratic
from kcm.kan.inspect import importance, plot_edge, plot_network

matplotlib.use("Agg")


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_picture_shows_the_most_important_edges_only() -> None:
    """Promise: the picture shows the most important edges and only their nodes."""
    network, x = KAN([5, 4, 2], seed=0), rows(100, 5)
    figure = plot_network(network, x, top=3, inputs=list("abcde"), outputs=["no", "yes"], title="t")
    (axes,) = figure.axes
    assert len(axes.child_axes) == 6  # a box for each of three edges in two layers
    best = importance(network, x)[0].flatten().argsort(descending=True)[:3]
    expected = {"abcde"[int(index) % 5] for index in best}
    assert expected == {text.get_text() for text in axes.texts} & set("abcde")
    matplotlib.pyplot.close(figure)


def test_lines_and_parabolas_are_drawn_with_names() -> None:
    """Promise: lines and parabolas are drawn by the names of inputs and directions."""
    network, x = RandomQuadratic(2, 3, 2), rows(100, 2)
    figure = plot_network(network, x, top=10, inputs=list("abcde"), outputs=["no", "yes"])
    (axes,) = figure.axes
    assert set("abcde") <= {text.get_text() for text in axes.texts}
    assert len(axes.child_axes) == 10
    matplotlib.pyplot.close(figure)


def test_one_edge_is_drawn_over_the_range_that_the_rows_take() -> None:
    layer, x = KANLinear(3, 2), torch.rand(50, 3)
    axes = plot_edge(layer, 1, 0, x)
    curve = axes.lines[0].get_xdata()
    assert (float(curve.min()), float(curve.max())) == pytest.approx((float(x[:, 1].min()), float(x[:, 1].max())))
    assert len(axes.lines) == 2
    matplotlib.pyplot.close(axes.figure)
