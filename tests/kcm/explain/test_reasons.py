"""The reasons of a logit add up to it, and name the features that made it."""

import pytest
import torch

from kcm.explain.explanation import contribution_curve, reasons_for
from kcm.kan import KAN, MixedSplines, RandomQuadratic
from kcm.kan.basis import Grid
from kcm.kan.inspect import edge_curve


def rows(count: int, width: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("widths", [(6, 3), (6, 5, 3)])
@pytest.mark.parametrize("top", [1, 4, 6])
def test_contributions_rest_and_baseline_sum_to_the_logit(widths: tuple[int, ...], top: int) -> None:
    network, probe = KAN(widths, seed=0).double(), rows(50, 6).double()
    reasons = reasons_for(network, probe[7], label=2, top=top)
    total = reasons.baseline + sum(each.contribution for each in reasons.contributions) + reasons.rest
    assert len(reasons.contributions) == top
    assert total == pytest.approx(float(network(probe[7])[2].detach()), abs=1e-9)
    assert reasons.logit == pytest.approx(total, abs=1e-9)


def test_a_network_of_one_layer_is_explained_by_its_own_edges() -> None:
    network, probe = KAN([6, 3], seed=0), rows(50, 6)
    reasons = reasons_for(network, probe[0], label=1, top=6)
    assert reasons.exact
    assert reasons.baseline == 0
    for each in reasons.contributions:
        _, (edge,) = edge_curve(network.kan_layers[0], each.feature, 1, probe[0, each.feature : each.feature + 1])
        assert each.contribution == pytest.approx(float(edge), abs=1e-5)
        assert each.through == 1


def quadratic(num_outputs: int = 3) -> RandomQuadratic:
    """Six inputs, nine directions, and an offset as closed forms leave one."""
    network = RandomQuadratic(6, 9, num_outputs, seed=0)
    network.offset.copy_(torch.linspace(-1, 2, num_outputs))
    return network


def test_curves_of_mixtures_are_explained_exactly_from_the_mean() -> None:
    """Each share is what the curve adds to its value at the mean of the rows."""
    network, x = MixedSplines(6, 9, 3, Grid(4, 2, -3.0, 3.0), 0.01), rows(50, 6)[7]
    network.fit([rows(50, 6) + 1])
    for label, logit in enumerate(network(x).tolist()):
        reasons = reasons_for(network, x, label, top=15)
        total = reasons.baseline + sum(each.contribution for each in reasons.contributions)
        assert (total, reasons.exact) == (pytest.approx(logit, abs=1e-5), True)
        at_mean = float(network(network.mean)[label])
        lines = sum(each.contribution for each in reasons_for(network, network.mean, label, top=15).contributions)
        assert reasons.baseline == pytest.approx(at_mean - lines, abs=1e-5)


@pytest.mark.parametrize("num_outputs", [2, 5])
@pytest.mark.parametrize("top", [1, 15])
def test_quadratic_units_are_explained_exactly(num_outputs: int, top: int) -> None:
    """Promise: quadratic units are explained exactly by lines and clipped parabolas."""
    network, x = quadratic(num_outputs), 3 * rows(50, 6)[7]
    v = network.projection @ x
    assert v.abs().max() > 4  # a parabola is clipped
    for label, logit in enumerate(network(x).tolist()):
        reasons = reasons_for(network, x, label, top)
        total = reasons.baseline + sum(each.contribution for each in reasons.contributions) + reasons.rest
        assert reasons.logit == pytest.approx(logit, abs=1e-5)
        assert total == pytest.approx(logit, abs=1e-5)
        assert reasons.exact
        assert len(reasons.contributions) == top
        # What no row changes is the baseline: the output at zero.
        assert reasons.baseline == pytest.approx(float(network(torch.zeros(6))[label].detach()), abs=1e-6)
        for each in reasons.contributions:
            without = network.features(x)
            without[each.feature] = 0  # features come in the order of the curves' inputs
            rest = float((without @ network.weight[label] + network.offset[label]).detach())
            assert each.contribution == pytest.approx(logit - rest, abs=1e-5)
            assert each.value == pytest.approx(float(torch.cat([x, v])[each.feature]), abs=1e-6)
            assert each.through == label


def test_only_live_feature_comes_first_with_its_node() -> None:
    network, probe = KAN([6, 4, 2], seed=0), rows(50, 6)
    with torch.no_grad():
        alive = network.kan_layers[0].weight.unflatten(1, (-1, 6))
        mask = torch.zeros_like(alive)
        mask[3, :, 5] = 1
        network.kan_layers[0].weight.mul_(mask.flatten(1))
    reasons = reasons_for(network, probe[0], label=0, top=3)
    assert not reasons.exact
    assert (reasons.contributions[0].feature, reasons.contributions[0].through) == (5, 3)
    assert reasons.contributions[0].value == pytest.approx(float(probe[0, 5]))
    assert [each.contribution for each in reasons.contributions[1:]] == [0, 0]


def test_a_parabola_is_flat_beyond_its_clip_and_a_line_is_not() -> None:
    network, x = quadratic(), 3 * rows(50, 6)[7]
    clipped = 0
    for each in reasons_for(network, x, label=2, top=15).contributions:
        points, values = contribution_curve(network, each, num_points=2001)
        assert (points[0], points[-1]) == (min(-4, each.value), max(4, each.value))
        assert float(values[(points - each.value).abs().argmin()]) == pytest.approx(each.contribution, abs=0.02)
        steps = values.diff() / points.diff()
        beyond = steps[points[:-1].abs() > 4.01]
        if each.feature < 6:
            torch.testing.assert_close(steps, steps.mean().expand(len(steps)), atol=1e-2, rtol=1e-2)
        elif len(beyond):
            clipped += 1
            assert beyond.abs().max() < 1e-4
    assert clipped


@pytest.mark.parametrize("widths", [(6, 3), (6, 5, 3), (6, 5, 4, 3)])
def test_curve_passes_through_its_edge_and_zero_at_reference(widths: tuple[int, ...]) -> None:
    network, x = KAN(widths, seed=0), rows(1, 6)[0]
    for each in reasons_for(network, x, label=2, top=6).contributions:
        points, values = contribution_curve(network, each, num_points=2001)
        assert (points[0], points[-1]) == (min(-3, each.value), max(3, each.value))
        here, reference = (float(values[(points - value).abs().argmin()]) for value in (each.value, 0.0))
        assert here == pytest.approx(each.carried, abs=1e-3)
        if len(widths) == 2:
            assert each.carried == pytest.approx(each.contribution, abs=1e-6)
        else:
            assert reference == pytest.approx(0, abs=1e-3)
