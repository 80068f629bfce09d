"""The hand-written CPU path computes what plain autograd computes, and leaves alone what no row touches."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from kcm.kan import KAN, KANLinear
from kcm.kan.basis import edge_features
from kcm.kan.eager import FewRows, ManyRows, kan_linear, touched_splines

PATHS = pytest.mark.parametrize("path", [FewRows, ManyRows])


def plain(layer: KANLinear, x: torch.Tensor) -> torch.Tensor:
    """The layer by torch's own autograd."""
    return F.linear(edge_features(x, layer.grid).flatten(-2), layer.weight)


@PATHS
@pytest.mark.parametrize("order", [1, 2, 3])
@pytest.mark.parametrize("size", [1, 2, 5, 6, 13])  # one window or several, with and without a knot at their centre
@pytest.mark.parametrize("grid_range", [(-3.0, 3.0), (-1.0, 4.0)])
def test_outputs_and_gradients_are_those_of_autograd(path, order, size, grid_range) -> None:
    layer = KANLinear(5, 4, size, order, grid_range, generator=torch.Generator().manual_seed(size)).double()
    x = (torch.randn(40, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2).requires_grad_()
    expected, actual = plain(layer, x), path.apply(x, layer.weight, layer.grid)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)
    direction = torch.randn(40, 4, dtype=torch.float64)
    for ours, theirs in zip(
        torch.autograd.grad(actual, (x, layer.weight), direction),
        torch.autograd.grad(expected, (x, layer.weight), direction),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@PATHS
def test_inputs_on_knots_have_the_right_gradient_too(path) -> None:
    layer = KANLinear(1, 1, 10, generator=torch.Generator().manual_seed(0)).double()
    x = torch.linspace(-3, 3, 11, dtype=torch.float64).unsqueeze(1).requires_grad_()  # zero divides two windows
    (expected,) = torch.autograd.grad(plain(layer, x).sum(), x)
    (actual,) = torch.autograd.grad(path.apply(x, layer.weight, layer.grid).sum(), x)
    torch.testing.assert_close(actual, expected, atol=1e-10, rtol=1e-10)


@PATHS
@pytest.mark.parametrize("size", [5, 12])
def test_float32_agrees_to_a_hundred_thousandth(path, size) -> None:
    layer = KANLinear(384, 8, size, generator=torch.Generator().manual_seed(0))
    x = torch.randn(50, 384, generator=torch.Generator().manual_seed(1)) * 2
    exact = plain(layer.double(), x.double())
    actual = path.apply(x, layer.float().weight, layer.grid)
    assert (actual - exact).abs().max() < 1e-5 * exact.abs().max()


@PATHS
def test_a_spline_that_no_row_touches_has_a_gradient_of_exactly_zero(path) -> None:
    layer = KANLinear(6, 3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(300, 6, generator=torch.Generator().manual_seed(1)) * 0.5  # one of the five intervals
    x[:, 5] = torch.where(x[:, 5] > 0.25, 9.0, -9.0)  # beyond both ends: nothing in between
    (gradient,) = torch.autograd.grad(path.apply(x, layer.weight, layer.grid).square().sum(), layer.weight)
    untouched = (edge_features(x, layer.grid)[:, 1:] == 0).all(0)
    assert untouched[:, :5].sum(0).tolist() == [4] * 5
    assert untouched[:, 5].sum() == 2
    splines = gradient.unflatten(1, (-1, 6))[:, 1:]
    assert (splines[:, untouched] == 0).all()
    assert (splines[:, ~untouched] != 0).all()


def test_touched_splines_are_those_with_a_value() -> None:
    layer = KANLinear(50, 1, 12)
    x = torch.randn(200, 50, generator=torch.Generator().manual_seed(0)) * torch.linspace(0.01, 4, 50)
    x[:, ::7] = x[:, ::7].sign() * 2.2  # two clusters with untouched splines between them
    expected = (edge_features(x, layer.grid)[:, 1:] > 0).any(0)
    assert 0.2 < expected.float().mean() < 0.9
    assert torch.equal(touched_splines(x, layer.grid), expected)


@PATHS
def test_nan_spoils_its_own_row_and_the_gradient_but_is_never_hidden(path) -> None:
    layer = KANLinear(4, 2, generator=torch.Generator().manual_seed(0))
    x = torch.randn(20, 4)
    x[7, 2] = torch.nan
    out = path.apply(x, layer.weight, layer.grid)
    assert out.isnan().any(1).nonzero().flatten().tolist() == [7]
    (gradient,) = torch.autograd.grad(out.sum(), layer.weight)
    assert gradient.unflatten(1, (-1, 4)).isnan().all(1).any(0).tolist() == [False, False, True, False]


@pytest.mark.parametrize("num_rows", [0, 1, 159, 160, 400])
def test_any_number_of_rows_and_any_strides_are_taken(num_rows) -> None:
    layer = KANLinear(200, 3, generator=torch.Generator().manual_seed(0))
    x = torch.randn(200, num_rows).t()
    torch.testing.assert_close(kan_linear(x, layer.weight, layer.grid), plain(layer, x), atol=1e-5, rtol=1e-5)


@PATHS
def test_what_inference_cached_serves_training_after(path) -> None:
    layer = KANLinear(3, 2, 7, 2, (-1.5, 1.25))  # a grid no other test has
    x = torch.randn(30, 3, requires_grad=True)
    with torch.inference_mode():
        path.apply(x.detach(), layer.weight, layer.grid)
    path.apply(x, layer.weight, layer.grid).sum().backward()
    assert x.grad is not None


def test_per_sample_gradients_by_vmap_are_those_of_single_rows() -> None:
    network, x = KAN([4, 3, 2], seed=0), torch.randn(6, 4)
    weights = {name: weight.detach() for name, weight in network.named_parameters()}

    def loss(weights, row):
        return torch.func.functional_call(network, weights, (row.unsqueeze(0),)).square().sum()

    together = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    for index, row in enumerate(x):
        network.zero_grad()
        network(row.unsqueeze(0)).square().sum().backward()
        for name, weight in network.named_parameters():
            torch.testing.assert_close(together[name][index], weight.grad, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("num_rows", [64, 800])
def test_bfloat16_and_autocast_stay_within_three_hundredths(num_rows) -> None:
    network, x = KAN([40, 8, 5], seed=0), torch.randn(num_rows, 40)
    exact = network(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = network(x)
    under_autocast.float().square().sum().backward()
    for inexact in (under_autocast, network.bfloat16()(x.bfloat16())):
        assert inexact.dtype == torch.bfloat16
        assert (inexact.float() - exact).abs().max() < 0.03 * exact.abs().max()
