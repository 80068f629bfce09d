"""Pruning removes what does not matter, and says what it cost."""

from __future__ import annotations

import pytest
import torch
from sklearn.datasets import load_digits

from kcm.errors import ConfigError
from kcm.kan import KAN
from kcm.kan.inspect.curves import live_edges
from kcm.kan.inspect.pruning import prune


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def trained_on_digits() -> tuple[KAN, torch.Tensor, torch.Tensor]:
    """A small network that knows the digits of scikit-learn."""
    digits = load_digits()
    x, labels = torch.tensor(digits.data / 16 * 3 - 1.5).float(), torch.tensor(digits.target)
    network, generator = KAN([64, 8, 10], seed=0), torch.Generator().manual_seed(0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    for _ in range(200):
        chosen = torch.randint(len(x), (128,), generator=generator)
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x[chosen]), labels[chosen]).backward()
        optimizer.step()
    return network, x, labels


def test_pruning_digits_drops_a_third_of_the_edges_for_less_than_a_point() -> None:
    network, x, labels = trained_on_digits()
    before = (network(x).argmax(1) == labels).float().mean().item()
    pruned = prune(network, x, 0.1, labels)
    live = sum(int(live_edges(layer).sum()) for layer in pruned.network.kan_layers)
    assert pruned.num_edges == live < 0.67 * (64 * 8 + 8 * 10)
    assert pruned.accuracy_before == pytest.approx(before)
    assert pruned.accuracy_after == pytest.approx((pruned.network(x).argmax(1) == labels).float().mean().item())
    assert before > 0.95
    assert pruned.accuracy_after > before - 0.01


def test_hidden_nodes_without_edges_disappear_and_leave_their_mean() -> None:
    network, x = KAN([3, 4, 2], seed=0), rows(400, 3)
    first, second = (layer.weight.data.unflatten(1, (-1, layer.in_features)) for layer in network.kan_layers)
    second[:, :, 1] *= 1e-4  # node 1 hardly leaves
    first[3] *= 1e-4  # node 3 hardly moves, but adds a constant
    second[:, 1:, 3] += 2.0
    pruned = prune(network, x, 1e-2)
    assert pruned.network.widths == (3, 2, 2)
    assert pruned.change < 2e-2
    assert pruned.change == pytest.approx((pruned.network(x) - network(x)).square().mean().sqrt().item(), rel=1e-3)


def test_a_threshold_of_zero_changes_nothing() -> None:
    network, x = KAN([3, 4, 2], seed=0), rows(100, 3)
    pruned = prune(network, x, 0.0)
    assert (pruned.network.widths, pruned.num_edges, pruned.accuracy_before) == ((3, 4, 2), 20, None)
    torch.testing.assert_close(pruned.network(x), network(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_outside_its_range_is_named(threshold) -> None:
    with pytest.raises(ConfigError, match=f"threshold = {threshold}"):
        prune(KAN([3, 2]), rows(10, 3), threshold)


def test_pruning_away_every_edge_is_refused() -> None:
    network = KAN([3, 2], seed=0)
    with pytest.raises(ConfigError, match="removes every edge"):
        prune(network, torch.zeros(10, 3), 0.5)  # rows that are all alike move no edge


def crossed(second_node: float) -> KAN:
    """A first node whose score is split over two inputs, and a second with one edge on each side."""
    network = KAN([2, 2, 1], seed=0)
    first, second = (layer.weight.data.unflatten(1, (-1, 2)) for layer in network.kan_layers)
    first[1] = first[0]
    first[0, :, 1] = first[0, :, 0]
    first[1, :, 1] = 0
    second.zero_()
    second[0, 0] = torch.tensor([1.0, second_node])
    return network


def test_edges_into_a_node_that_nothing_listens_to_are_dropped_with_it() -> None:
    pruned = prune(crossed(0.75), rows(50, 2), 0.6)  # the edge into the second node passes, the one out of it does not
    assert (pruned.network.widths, pruned.num_edges) == ((2, 1, 1), 2)


def test_edges_that_pass_but_join_nothing_count_as_none() -> None:
    with pytest.raises(ConfigError, match="removes every edge"):
        prune(crossed(1.2), rows(50, 2), 0.95)
