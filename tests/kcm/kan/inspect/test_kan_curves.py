"""An edge's curve is what the layer does with that input."""

import pytest
import torch

from kcm.kan import KANLinear
from kcm.kan.inspect import edge_curve, edge_moments, edge_values


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("hidden", [False, True])
def test_edge_curve_equals_the_layer_on_one_input(hidden) -> None:
    """Promise: an edge's curve is what the layer does with that input alone."""
    layer = KANLinear(40, 3, hidden=hidden, generator=torch.Generator().manual_seed(0))
    points, values = edge_curve(layer, 7, 2)
    with torch.no_grad():
        layer.weight.unflatten(1, (-1, 40))[:, :, [i for i in range(40) if i != 7]] = 0
    x = torch.zeros(len(points), 40)
    x[:, 7] = points
    torch.testing.assert_close(layer(x)[:, 2].detach(), values, atol=1e-5, rtol=1e-5)


def test_edges_add_up_to_the_layer_and_moments_match() -> None:
    """Promise: edges add up to the layer and their moments are those of their values."""
    layer, x = KANLinear(6, 4, hidden=True, generator=torch.Generator().manual_seed(0)), rows(50, 6)
    values = edge_values(layer, x)
    torch.testing.assert_close(values.sum(-1), layer(x), atol=1e-5, rtol=1e-5)
    mean, deviation = edge_moments(layer, x)
    torch.testing.assert_close(mean, values.mean(0), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(deviation, values.std(0, correction=0), atol=1e-5, rtol=1e-4)
