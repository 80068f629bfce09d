"""A network is its widths and its seed; it can be compiled, distributed, stored and served."""

import pytest
import torch

from kcm.kan import KAN


def test_equal_seeds_give_equal_networks_and_others_do_not() -> None:
    first, second, other = KAN([5, 4, 3], seed=1), KAN([5, 4, 3], seed=1), KAN([5, 4, 3], seed=2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


@pytest.mark.slow
def test_compiled_network_agrees_for_all_batch_sizes() -> None:
    """Promise: a compiled network agrees, and is compiled once for all batch sizes."""
    network = KAN([12, 6, 4], seed=0)
    compiled = torch.compile(network, backend="aot_eager", dynamic=True, fullgraph=True)
    compiled(torch.randn(2, 12))
    with torch.compiler.set_stance("fail_on_recompile"):
        for num_rows in (2, 7, 64, 500):
            x = torch.randn(num_rows, 12)
            torch.testing.assert_close(compiled(x), network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("rate", "least"), [(1e-3, 0.3), (1e-2, 0.9)])
def test_wide_first_layer_trains_at_small_and_large_rates(rate, least) -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(100, 384, generator=generator) * 0.8
    labels = torch.randint(100, (2400,), generator=generator)
    x = centres[labels] + torch.randn(2400, 384, generator=generator)
    x = x / x.norm(dim=1, keepdim=True) * 384**0.5
    network = KAN([384, 16, 100], seed=0)
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate)
    for _ in range(5):
        for rows in torch.randperm(2100, generator=generator).split(64):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(x[rows]), labels[rows]).backward()
            optimizer.step()
    assert (network(x[2100:]).argmax(1) == labels[2100:]).float().mean() > least


@pytest.mark.parametrize("layer", [{}, {"centred": True}, {"base_activation": "none"}])
@pytest.mark.parametrize("widths", [(24, 3), (24, 8, 3)])
@pytest.mark.parametrize("num_rows", [40, 1100])
def test_networks_side_by_side_are_what_they_are_alone(widths, layer, num_rows: int) -> None:
    torch.manual_seed(0)
    x, gradient = torch.randn(num_rows, 24), torch.randn(num_rows, 3)
    alone, together = ([KAN(widths, seed=seed, **layer) for seed in (1, 2)] for _ in range(2))
    outputs = [network(x) for network in alone], together[0].side_by_side(together[1:], x)
    for one, other in zip(*outputs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        one.backward(gradient)
    torch.autograd.backward(outputs[1], [gradient, gradient])
    for first, second in zip(alone, together, strict=True):
        for one, other in zip(first.parameters(), second.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-4)
