"""What can be read off a network: curves of edges, contributions to logits, importance, and pictures of them."""

import matplotlib
import pytest
import torch

from kcm.kan import KAN, KANLinear, RandomQuadratic
from kcm.kan.inspect import (
    CurveNetwork,
    attribution,
    edge_curve,
    edge_moments,
    edge_values,
    importance,
    plot_edge,
    plot_network,
)


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hidden", [False, True])
def test_edge_curve_equals_the_layer_on_one_input(hidden) -> None:
    layer = KANLinear(40, 3, hidden=hidden, generator=torch.Generator().manual_seed(0))
    points, values = edge_curve(layer, 7, 2)
    with torch.no_grad():
        layer.weight.unflatten(1, (-1, 40))[:, :, [i for i in range(40) if i != 7]] = 0
    x = torch.zeros(len(points), 40)
    x[:, 7] = points
    torch.testing.assert_close(layer(x)[:, 2].detach(), values, atol=1e-5, rtol=1e-5)


def test_edges_add_up_to_the_layer_and_moments_match() -> None:
    layer, x = KANLinear(6, 4, hidden=True, generator=torch.Generator().manual_seed(0)), rows(50, 6)
    values = edge_values(layer, x)
    torch.testing.assert_close(values.sum(-1), layer(x), atol=1e-5, rtol=1e-5)
    mean, deviation = edge_moments(layer, x)
    torch.testing.assert_close(mean, values.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(deviation, values.std(0, correction=0), atol=1e-5, rtol=1e-4)


def test_contributions_to_a_single_layer_are_exact() -> None:
    network, x = KAN([8, 5], seed=0), rows(20, 8)
    found = attribution(network, x)
    torch.testing.assert_close(found.contributions.sum(-1), network(x), atol=1e-5, rtol=1e-5)
    changed = x.clone()
    changed[:, 3] = 1.7
    # Changing one input changes the logits by the change of its contribution, and no other contribution.
    moved = attribution(network, changed).contributions - found.contributions
    torch.testing.assert_close(network(changed) - network(x), moved[:, :, 3], atol=1e-5, rtol=1e-5)
    assert moved.abs().sum((0, 1)).nonzero().flatten().tolist() == [3]


def test_contributions_add_up_to_the_change_from_reference() -> None:
    network, x, reference = KAN([8, 6, 5, 3], seed=0), rows(20, 8), torch.zeros(8)
    found = attribution(network, x)
    torch.testing.assert_close(found.baseline, network(reference))
    torch.testing.assert_close(found.contributions.sum(-1) + found.baseline, network(x), atol=1e-4, rtol=1e-4)
    same = x.clone()
    same[:, 2] = reference[2]
    assert attribution(network, same).contributions[:, :, 2].abs().max() < 1e-6


@pytest.mark.parametrize("network", [KAN([6, 4], seed=0), RandomQuadratic(6, 9, 4)], ids=["splines", "quadratic"])
def test_layer_importance_is_the_deviation_in_the_logit(network: CurveNetwork) -> None:
    x = rows(200, 6)
    (scores,) = importance(network, x)
    expected = edge_values(network.kan_layers[0], network.curve_inputs(x)).std(0, correction=0)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_input_of_an_ignored_node_does_not_matter() -> None:
    network, x = KAN([2, 2, 1], seed=0), rows(300, 2)
    first, second = (layer.weight.data.unflatten(1, (-1, 2)) for layer in network.kan_layers)
    first[0, :, 1] = first[1, :, 0] = 0  # each input has a node of its own
    second[:, :, 1] = 0  # and the second node is ignored
    scores = importance(network, x)
    assert scores[0][0, 0] > 0.01
    assert scores[0][1, 1] == scores[1][0, 1] == 0


matplotlib.use("Agg")


def test_picture_shows_the_most_important_edges_only() -> None:
    network, x = KAN([5, 4, 2], seed=0), rows(100, 5)
    figure = plot_network(network, x, top=3, inputs=list("abcde"), outputs=["no", "yes"], title="t")
    (axes,) = figure.axes
    assert len(axes.child_axes) == 6  # a box for each of three edges in two layers
    best = importance(network, x)[0].flatten().argsort(descending=True)[:3]
    expected = {"abcde"[int(index) % 5] for index in best}
    assert expected == {text.get_text() for text in axes.texts} & set("abcde")
    matplotlib.pyplot.close(figure)


def test_lines_and_parabolas_are_drawn_with_names() -> None:
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
