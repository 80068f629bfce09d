"""The Fisher information is that of a gradient per row, taken by torch one row at a time."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from kcm.kan import KAN, MLP, RandomReLU
from kcm.learners.fisher import sum_squared_gradients

CENTRED = KAN([5, 4], grid_size=3, spline_order=1, base_activation="none", centred=True)
NETWORKS = [
    KAN([5, 4], grid_size=3),
    CENTRED,
    KAN([5, 7, 4], grid_size=3),
    MLP([5, 6, 3, 4]),
    nn.Linear(5, 4, bias=False),
    RandomReLU(5, 7, 4),
]
EVERY = torch.ones(4, dtype=torch.bool)


def rows(count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, 5, generator=generator)
    return x, torch.randint(0, 3, (count,), generator=generator), torch.ones(count)


def row_by_row(network: nn.Module, x, labels: torch.Tensor, active: torch.Tensor, kind: str, base=0.0):
    total = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for row, label in zip(x, labels, strict=True):
        log_p = F.log_softmax((network(row.unsqueeze(0))[0] + base).masked_fill(~active, -torch.inf), -1)
        chosen = [int(label)] if kind == "empirical" else active.nonzero()[:, 0].tolist()
        for each in chosen:
            share = 1.0 if kind == "empirical" else float(log_p[each].detach().exp())
            gradients = torch.autograd.grad(log_p[each], list(network.parameters()), retain_graph=True)
            for name, gradient in zip(total, gradients, strict=True):
                total[name] += share * gradient.square()
    return total


@pytest.mark.parametrize("kind", ["exact", "empirical"])
@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: type(network).__name__)
@pytest.mark.parametrize("active", [EVERY, torch.tensor([True, True, True, False])], ids=["every", "seen"])
def test_squares_are_those_of_a_gradient_per_row(network, kind, active) -> None:
    x, labels, weights = rows(20)
    found = sum_squared_gradients(network, x, labels, weights, active, kind)
    expected = row_by_row(network, x, labels, active, kind)
    assert found.keys() == expected.keys()
    for name, square in found.items():
        torch.testing.assert_close(square, expected[name].double(), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", ["exact", "empirical"])
def test_the_answers_are_those_of_the_network_on_its_base(kind) -> None:
    x, labels, weights = rows(10)
    base = torch.tensor([2.0, -1.0, 0.0, 3.0])
    found = sum_squared_gradients(NETWORKS[0], x, labels, weights, EVERY, kind, base.expand(10, 4))
    expected = row_by_row(NETWORKS[0], x, labels, EVERY, kind, base)["layers.0.weight"]
    torch.testing.assert_close(found["layers.0.weight"], expected.double(), atol=1e-6, rtol=1e-4)


def test_a_softmax_over_linear_scores_has_the_fisher_of_the_textbook() -> None:
    # d log p(c) / dW = (e_c - p) x^T, so that the expectation over c of its square is p (1 - p) x^2.
    network = nn.Linear(5, 4)
    x, labels, weights = rows(30)
    p = network(x).softmax(-1).detach()
    found = sum_squared_gradients(network, x, labels, weights, EVERY, "exact")
    torch.testing.assert_close(found["weight"], ((p * (1 - p)).T @ x.square()).double(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found["bias"], (p * (1 - p)).sum(0).double(), atol=1e-6, rtol=1e-5)


def test_padding_counts_for_nothing() -> None:
    x, labels, _ = rows(8)
    weights = torch.tensor([1.0] * 5 + [0.0] * 3)
    padded = sum_squared_gradients(NETWORKS[1], x, labels, weights, EVERY, "exact")
    plain = sum_squared_gradients(NETWORKS[1], x[:5], labels[:5], torch.ones(5), EVERY, "exact")
    for name, square in plain.items():
        torch.testing.assert_close(padded[name], square)
