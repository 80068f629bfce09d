"""Known functions are recognised, and formulas put together from them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kcm.errors import ConfigError
from kcm.kan import KAN, KANLinear
from kcm.kan.inspect.symbolic import formula, symbolic_fits, to_symbolic


def rows(count: int, width: int, seed: int = 0) -> torch.Tensor:
    """Normal rows that are the same each time."""
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def layer_of(function, low: float = -2.0, high: float = 2.0) -> KANLinear:
    """A layer with one edge, fitted closely to `function` on its grid."""
    layer = KANLinear(1, 1, 30, grid_range=(low, high)).double()
    x = torch.linspace(low, high, 600, dtype=torch.float64).unsqueeze(1)
    solution = torch.linalg.lstsq(layer.features(x).detach(), function(x), driver="gelsd").solution
    with torch.no_grad():
        layer.weight.copy_(solution.t())
    return layer


@pytest.mark.parametrize(
    ("name", "function", "low", "high"),
    [
        ("x", lambda x: 3 * x - 1, -2, 2),
        ("x^2", lambda x: (x - 0.5) ** 2, -2, 2),
        ("x^3", lambda x: x**3 - 1, -2, 2),
        ("exp", lambda x: 0.5 * torch.exp(1.3 * x), -2, 2),
        ("sin", lambda x: 2 * torch.sin(3 * x + 1), -2, 2),
        ("abs", lambda x: (x - 0.4).abs(), -2, 2),
        ("log", lambda x: torch.log(x), 0.05, 3),
        ("sqrt", lambda x: torch.sqrt(x - 0.19), 0.2, 3),
        ("tanh", lambda x: torch.tanh(3 * x), -2, 2),
        ("1/x", lambda x: 1 / x, 0.2, 3),
        ("gaussian", lambda x: torch.exp(-4 * x**2), -2, 2),
    ],
)
def test_known_functions_are_recognised(name, function, low, high) -> None:
    points = torch.linspace(low + 0.01 * (high - low), high, 150, dtype=torch.float64)
    layer = layer_of(function, low, high)
    fit = to_symbolic(layer, 0, 0, points)
    assert fit.function == name
    assert fit.r2 > 0.999
    np.testing.assert_allclose(fit(points.numpy()), function(points).numpy(), atol=0.05)
    at_one = float(fit.expression(1.0))  # the symbolic form is the same formula
    assert at_one == pytest.approx(float(fit(np.array([1.0]))[0]))
    by_name = {other.function: other.r2 for other in symbolic_fits(layer, 0, 0, points)}
    assert fit.r2 >= max(by_name.values()) - 1e-3


def test_sine_has_its_frequency_and_the_formula_reads_as_one() -> None:
    network = KAN.from_layers([layer_of(lambda x: torch.sin(torch.pi * x))])
    x = torch.linspace(-1, 1, 200, dtype=torch.float64).unsqueeze(1)
    fit = to_symbolic(network.kan_layers[0], 0, 0, x[:, 0])
    assert (fit.a, fit.b, fit.c) == pytest.approx((torch.pi, 0, 1), abs=0.01)
    assert formula(network, x, ["t"]) == ["sin(3.14*t)"]


def test_a_formula_is_composed_through_the_layers_with_pruned_edges_as_constants() -> None:
    inner = KANLinear(2, 1, 30, grid_range=(-3.0, 3.0)).double()
    with torch.no_grad():
        inner.weight.zero_()
        inner.weight.unflatten(1, (-1, 2))[0, :, 0] = layer_of(lambda x: 3 * x**2, -3, 3).weight[0]
        inner.weight.unflatten(1, (-1, 2))[0, 1:, 1] = -1.25
    outer = layer_of(torch.exp, -3, 3)
    x = torch.rand(300, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    assert formula(KAN.from_layers([inner, outer]), x) == ["0.29*exp(3*x1**2)"]  # exp(-1.25) is 0.29


def test_names_and_points_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="3 names for 2 inputs"):
        formula(KAN([2, 1]), rows(20, 2), ["a", "b", "c"])
    with pytest.raises(ConfigError, match="1 different values"):
        to_symbolic(KANLinear(2, 1), 0, 0, torch.zeros(20))
