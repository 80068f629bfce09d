"""Curves over projections, fixed or learned, are read as one layer of lines and curves."""

import pytest
import torch

from kcm.kan import MixedSplines, RandomQuadratic
from kcm.kan.basis import Grid
from kcm.kan.inspect import edge_values
from kcm.kan.random_relu import ProjectedCurves


def rows(count: int, width: int) -> torch.Tensor:
    """Rows about a mean that is not zero, of which some projections lie beyond the clamp."""
    return 3 * torch.randn(count, width, generator=torch.Generator().manual_seed(0)) + 1


def made(kind: str, num_linear: int = 0) -> ProjectedCurves:
    """24 curves over the first six inputs, and an offset."""
    if kind == "squares":
        network: ProjectedCurves = RandomQuadratic(6 + num_linear, 24, 3, num_linear=num_linear)
    else:
        network = splines = MixedSplines(6 + num_linear, 24, 3, Grid(4, 2, -3.0, 3.0), 0.01, num_linear=num_linear)
        splines.fit([rows(200, 6 + num_linear)])
    network.offset.copy_(torch.tensor([1.0, -2.0, 0.5]))
    return network


@pytest.mark.parametrize("kind", ["squares", "splines"])
@pytest.mark.parametrize("num_linear", [0, 2])
def test_lines_and_curves_add_up_to_the_output(kind: str, num_linear: int) -> None:
    """And each is zero at zero, which is the mean of fitted rows."""
    network, x = made(kind, num_linear), rows(50, 6 + num_linear)
    (layer,), z = network.kan_layers, network.curve_inputs(x)
    assert (layer.in_features, layer.out_features, z.shape) == (30 + num_linear, 3, (50, 30 + num_linear))
    torch.testing.assert_close(layer(z), network(x).detach(), atol=1e-4, rtol=1e-4)
    assert not edge_values(layer, torch.zeros_like(z)).any()


@pytest.mark.parametrize("kind", ["squares", "splines"])
def test_what_a_curve_adds_is_split_over_the_inputs(kind: str) -> None:
    """Promise: the shares of inputs sum to the shares of curves, and a linear input gets exactly what it adds."""
    network, x = made(kind, num_linear=2), rows(50, 8)
    shares = edge_values(network.kan_layers[0], network.curve_inputs(x)).detach()[:, 1]
    passed = network.passed_back(shares, x)
    torch.testing.assert_close(passed.sum(1), shares.sum(1), atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(passed[:, 6:], shares[:, 6:8])


def test_a_share_follows_each_input_in_its_projection() -> None:
    network, x = made("squares"), rows(50, 6)
    x[0] = 0  # no projection moves
    alone = torch.zeros(50, 30)
    alone[:, 6 + 7] = 1
    expected = x[1:] * network.projection[7] / (x[1:] @ network.projection[7]).unsqueeze(1)
    passed = network.passed_back(alone, x)
    assert not passed[0].any()
    torch.testing.assert_close(passed[1:], expected, atol=1e-4, rtol=1e-4)
