"""Contributions add up to the logits, and importance is what an edge brings to them."""

import pytest
import torch

from kcm.kan import KAN, RandomQuadratic
from kcm.kan.inspect import CurveNetwork, attribution, edge_values, importance


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


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
    """Promise: contributions to a deep network add up to the change from the reference."""
    network, x, reference = KAN([8, 6, 5, 3], seed=0), rows(20, 8), torch.zeros(8)
    found = attribution(network, x)
    torch.testing.assert_close(found.baseline, network(reference))
    torch.testing.assert_close(found.contributions.sum(-1) + found.baseline, network(x), atol=1e-4, rtol=1e-4)
    same = x.clone()
    same[:, 2] = reference[2]
    assert attribution(network, same).contributions[:, :, 2].abs().max() < 1e-6


@pytest.mark.parametrize("network", [KAN([6, 4], seed=0), RandomQuadratic(6, 9, 4)], ids=["splines", "quadratic"])
def test_layer_importance_is_the_deviation_in_the_logit(network: CurveNetwork) -> None:
    """Promise: importance of a single layer is the deviation that an edge brings to the logit."""
    x = rows(200, 6)
    (scores,) = importance(network, x)
    expected = edge_values(network.kan_layers[0], network.curve_inputs(x)).std(0, correction=0)
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-4)


def test_input_of_an_ignored_node_does_not_matter() -> None:
    """Promise: an input that only feeds an ignored node does not matter."""
    network, x = KAN([2, 2, 1], seed=0), rows(300, 2)
    first, second = (layer.weight.data.unflatten(1, (-1, 2)) for layer in network.kan_layers)
    first[0, :, 1] = first[1, :, 0] = 0  # each input has a node of its own
    second[:, :, 1] = 0  # and the second node is ignored
    scores = importance(network, x)
    assert scores[0][0, 0] > 0.01
    assert scores[0][1, 1] == scores[1][0, 1] == 0
