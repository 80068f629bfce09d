"""Curves over mixtures: P-splines beside a linear part, whose mixtures come from rows."""

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.interpolate import BSpline
from scipy.stats import norm

from kcm.collaborator.collaborator import NetworkConfig
from kcm.kan import MixedSplines
from kcm.kan.basis import Grid
from kcm.kan.mixed_splines import bends

GRID = Grid(4, 2, -3.0, 3.0)


def rows(count: int = 200) -> torch.Tensor:
    """Rows that vary more in some directions than in others, about a mean that is not zero."""
    generator = torch.Generator().manual_seed(0)
    return torch.randn(count, 6, generator=generator) * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.2, 0.1]) + 1


def network(num_outputs: int = 3) -> MixedSplines:
    """A network with mixtures of the rows, and an offset."""
    fitted = MixedSplines(6, 24, num_outputs, GRID, 0.01)
    fitted.fit([rows()])
    fitted.offset.copy_(torch.linspace(-1, 1, num_outputs))
    return fitted


@pytest.mark.parametrize(("grid", "roughness"), [(GRID, 0.0), (GRID, 0.3), (Grid(3, 3, -2.5, 2.5), 0.01)])
def test_ridge_is_the_penalty_of_p_splines(grid: Grid, roughness: float) -> None:
    """|w|^2 is the mean square of the curve and its squared third differences, the curve by scipy's B-splines."""
    weight_J = np.random.default_rng(0).standard_normal(grid.num_basis - 2)
    spline_K = weight_J @ bends(grid, roughness)
    step = (grid.high - grid.low) / grid.size
    knots = grid.low + step * np.arange(-grid.order, grid.size + grid.order + 1)
    z = np.linspace(-7, 7, 20_001)
    mass = norm.pdf(z) * (z[1] - z[0])
    curve = BSpline(knots, spline_K, grid.order)(z.clip(grid.low, grid.high))
    assert [mass @ curve, mass @ (z * curve)] == pytest.approx([0, 0], abs=1e-4)
    penalty = mass @ curve**2 + roughness * np.square(np.diff(spline_K, 3)).sum()
    assert weight_J @ weight_J == pytest.approx(penalty, rel=1e-3)


def test_a_rough_penalty_leaves_a_learned_parabola() -> None:
    z = torch.linspace(-2, 2, 50, dtype=torch.float64)
    stiff = MixedSplines(1, 1, 1, Grid(4, 2, -3.0, 3.0), 1e12)
    curves = stiff.double().features(stiff.projection.double().sign() * z[:, None])[:, 1:-1].numpy()
    assert np.abs(curves[:, 1:]).max() < 1e-4
    residual = np.polyfit(z.numpy(), curves[:, 0], 2, full=True)[1]
    assert float(residual[0]) < 1e-10


def test_fewer_than_four_free_coefficients_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"leave a curve 3 free coefficients.*6 or more"):
        NetworkConfig(hidden=(), basis="pspline", mixing=24, grid_size=3, spline_order=2)


def test_mixtures_are_those_of_the_rows_however_they_come() -> None:
    """Mean 0 and a variance of about 1 over the rows; along directions in which the rows vary."""
    whole, parts = MixedSplines(6, 240, 3, GRID, 0.01), MixedSplines(6, 240, 3, GRID, 0.01)
    whole.fit([rows()])
    parts.fit(rows().split(33))
    assert torch.equal(whole.projection, parts.projection)
    mixtures = whole.curve_inputs(rows())[:, 6:]
    torch.testing.assert_close(mixtures.mean(0), torch.zeros(240), atol=1e-4, rtol=0)
    assert 0.9 < mixtures.var(0).median() < 1.1
    share = whole.projection.square().mean(0)
    assert (share[:4].diff() < 0).all()  # the rows vary less and less from the first input to the fourth
    assert share[4:].max() < share[3]


def test_equal_rows_leave_the_mixtures_as_drawn() -> None:
    fitted, drawn = MixedSplines(6, 24, 3, GRID, 0.01), MixedSplines(6, 24, 3, GRID, 0.01)
    fitted.fit([torch.ones(5, 6)])
    assert torch.equal(fitted.projection, drawn.projection)


def test_curves_ignore_the_last_inputs() -> None:
    """Promise: mixtures, and so curves, are those of the rows without the last inputs, which enter linearly."""
    plain, beside = network(), MixedSplines(8, 24, 3, GRID, 0.01, num_linear=2)
    wide = torch.cat([rows(), torch.randn(200, 2, generator=torch.Generator().manual_seed(1))], 1)
    beside.fit([wide])
    torch.testing.assert_close(beside.projection, plain.projection)
    torch.testing.assert_close(beside.features(wide)[:, 8:], plain.features(rows())[:, 6:])
    torch.testing.assert_close(beside.features(wide)[:, 6:8], wide[:, 6:], atol=1e-6, rtol=1e-6)
