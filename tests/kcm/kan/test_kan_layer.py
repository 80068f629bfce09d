"""A KAN layer is the formula it claims to be, in every form in which it can be run."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.interpolate import BSpline
from scipy.stats import norm
from torch.nn import functional as F

from kcm.errors import ConfigError
from kcm.kan import KAN, KANLinear
from kcm.kan.basis import Grid, edge_features, normal_means, spline_basis

ORDERS = [1, 2, 3]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 5, 8])
def test_the_basis_is_scipy_s_inside_and_at_the_ends_of_the_grid(order, size) -> None:
    grid = Grid(size, order, -3.0, 3.0)
    x = torch.linspace(-3, 3, 101, dtype=torch.float64)
    step = 6 / size
    knots = -3 + step * np.arange(-order, size + order + 1)
    ours = spline_basis(x[:, None], grid)[..., 0].numpy()
    for index in range(grid.num_basis):
        coefficients = np.eye(grid.num_basis)[index]
        theirs = BSpline(knots, coefficients, order, extrapolate=False)(np.clip(x.numpy(), -3, 3 - 1e-13))
        np.testing.assert_allclose(ours[:, index], theirs, atol=1e-6)
    np.testing.assert_allclose(ours.sum(1), 1, atol=1e-12)
    assert (np.count_nonzero(ours, axis=1) <= order + 1).all()


def reference(layer: KANLinear, x: torch.Tensor) -> torch.Tensor:
    """The formula, edge by edge, in float64 with scipy's splines."""
    order, size = layer.grid.order, layer.grid.size
    step = (layer.grid.high - layer.grid.low) / size
    knots = layer.grid.low + step * np.arange(-order, size + order + 1)
    coefficients = layer.coefficients.detach().double().numpy()
    values = x.double().numpy()
    clamped = np.clip(values, layer.grid.low, layer.grid.high - 1e-12)
    out = np.zeros((len(values), layer.out_features))
    for o in range(layer.out_features):
        for i in range(layer.in_features):
            base = values[:, i] / (1 + np.exp(-values[:, i]))
            out[:, o] += coefficients[o, 0, i] * base
            out[:, o] += BSpline(knots, coefficients[o, 1:, i], order)(clamped[:, i])
    return torch.from_numpy(out)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("size", [1, 5])
def test_the_means_under_a_normal_are_scipy_s_integrals(order, size) -> None:
    grid = Grid(size, order, -2.5, 3.0)

    def spline(x: float, k: int) -> float:
        return float(spline_basis(torch.tensor([[x]], dtype=torch.float64), grid)[0, k, 0])

    for k, mean in enumerate(normal_means(grid).tolist()):
        expected, _ = quad(lambda x, k=k: norm.pdf(x) * spline(x, k), -9, 9, points=(-2.5, 3.0), limit=200)
        assert mean == pytest.approx(expected, abs=1e-7)


FORMS = [*(("silu", False, order) for order in ORDERS), ("none", False, 1), ("silu", True, 1), ("none", True, 1)]


@pytest.mark.parametrize(("base_activation", "centred", "order"), FORMS)
@pytest.mark.parametrize("hidden", [False, True])
def test_the_layer_is_its_formula_in_every_form(base_activation, centred, order, hidden) -> None:
    """Promise: inside and outside of the grid, with or without base, centred or not."""
    generator = torch.Generator().manual_seed(0)
    options = {"hidden": hidden, "base_activation": base_activation, "centred": centred}
    layer = KANLinear(30, 3, 4, order, **options, generator=generator)
    assert (layer.bias is None) is not centred
    if layer.bias is not None:
        layer.bias.data = torch.randn(3, generator=generator)
    x = torch.randn(40, 30, generator=generator) * 2
    basis_NKI = spline_basis(x.double(), layer.grid)
    if centred:
        basis_NKI = basis_NKI - normal_means(layer.grid)[:, None]
    parts = [F.silu(x.double()).unsqueeze(1)] * (base_activation == "silu") + [basis_NKI]
    expected = torch.cat(parts, 1).flatten(1) @ layer.weight.double().T * layer.scale
    expected = expected if layer.bias is None else expected + layer.bias.double()
    torch.testing.assert_close(layer(x).double(), expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(layer(x).double(), reference(layer, x), atol=1e-4, rtol=1e-4)
    by_features = F.linear(layer.features(x), layer.weight, layer.bias)
    torch.testing.assert_close(by_features.double(), expected, atol=1e-4, rtol=1e-4)
    copy = KANLinear(30, 3, 4, order, **options, generator=generator)
    copy.write(layer.coefficients)
    torch.testing.assert_close(copy(x).double(), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("base_activation", "centred", "order"), FORMS)
def test_gradients_are_those_of_finite_differences(base_activation, centred, order) -> None:
    options = {"base_activation": base_activation, "centred": centred}
    layer = KANLinear(4, 2, 3, order, **options, generator=torch.Generator().manual_seed(1)).double()
    x = (torch.rand(5, 4, dtype=torch.float64) * 5 - 2.5).requires_grad_()
    names, weights = zip(*layer.named_parameters(), strict=True)

    def output(inputs: torch.Tensor, *values: torch.Tensor) -> torch.Tensor:
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), inputs)

    assert torch.autograd.gradcheck(output, (x, *(weight.detach().clone().requires_grad_() for weight in weights)))


@settings(max_examples=25)
@given(
    lead=st.lists(st.integers(0, 3), max_size=2),
    widths=st.lists(st.integers(1, 9), min_size=2, max_size=3),
    order=st.integers(1, 3),
    size=st.integers(1, 6),
)
def test_any_shape_works_with_or_without_input_gradient(lead, widths, order, size) -> None:
    network = KAN(widths, size, order, seed=3)
    x = torch.randn(*lead, widths[0]) * 2
    out = network(x)
    assert out.shape == (*lead, widths[-1])
    torch.testing.assert_close(network(x.requires_grad_()), out, atol=1e-5, rtol=1e-5)


def test_untouched_spline_has_exactly_zero_gradient() -> None:
    layer = KANLinear(6, 3, 5, generator=torch.Generator().manual_seed(0))
    x = torch.rand(300, 6, generator=torch.Generator().manual_seed(1)) * 0.5  # one of the five intervals
    x[:, 5] = torch.where(x[:, 5] > 0.25, 9.0, -9.0)  # beyond both ends: nothing in between
    (gradient,) = torch.autograd.grad(layer(x).square().sum(), layer.weight)
    untouched = (edge_features(x, layer.grid)[:, 1:] == 0).all(0)
    assert untouched[:, :5].sum(0).tolist() == [4] * 5
    assert untouched[:, 5].sum() == 2
    splines = gradient.unflatten(1, (-1, 6))[:, 1:]
    assert (splines[:, untouched] == 0).all()
    assert (splines[:, ~untouched] != 0).all()


def test_what_inference_cached_serves_training_after() -> None:
    layer = KANLinear(3, 2, 7, 2, (-1.5, 1.25))  # a grid no other test has
    x = torch.randn(30, 3, requires_grad=True)
    with torch.inference_mode():
        layer(x.detach())
    layer(x).sum().backward()
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


def test_bfloat16_and_autocast_stay_within_three_hundredths() -> None:
    network, x = KAN([40, 8, 5], seed=0), torch.randn(64, 40)
    exact = network(x).detach()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        under_autocast = network(x)
    under_autocast.float().square().sum().backward()
    for inexact in (under_autocast, network.bfloat16()(x.bfloat16())):
        assert inexact.dtype == torch.bfloat16
        assert (inexact.float() - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([4],), "widths"),
        (([4, 0],), "width"),
        (([4, 2], 0), "grid_size"),
        (([4, 2], 5, 4), "spline_order"),
        (([4, 2], 5, 3, (1.0, -1.0)), "grid_range"),
    ],
)
def test_bad_shapes_and_grids_are_named(arguments, message) -> None:
    with pytest.raises(ConfigError, match=message):
        KAN(*arguments)
