"""Random units are given as many as cost what the KAN costs: by a search, once, and in closed form alone."""

from __future__ import annotations

import pytest

from kcm.errors import ConfigError
from kcm.study import equal_cpu
from kcm.study.equal_cpu import EqualCpu, search


@pytest.mark.parametrize("power", [1.5, 2.0, 3.0])
@pytest.mark.parametrize("guess", [800, 3000, 12000])
def test_the_width_is_found_where_the_cost_is_equal(power: float, guess: int) -> None:
    """Whatever the power of the width that the cost goes with, up to the cube of a solution."""
    found = search(lambda width: (width / 3100) ** power, guess)
    assert found.ratio == pytest.approx(1, abs=0.02)
    assert found.width == pytest.approx(3100, rel=0.021)


def test_a_clock_that_jumps_ends_at_the_nearest_width_that_was_tried() -> None:
    """A busy machine must not keep the search going, nor the last turn decide."""
    ratios = iter([3.0, 0.5, 1.1, 2.0, 0.4, 3.0, 0.2, 5.0])
    tried: list[int] = []

    def ratio_at(width: int) -> float:
        tried.append(width)
        return next(ratios)

    assert search(ratio_at, 1000) == EqualCpu(tried[2], 1.1)


def test_the_control_of_a_closed_form_is_measured_once_and_is_of_that_width(config, run, monkeypatch) -> None:
    """The KAN stays as it is; its control is the layer of ReLUs that was tried last, of one coefficient a unit."""
    monkeypatch.setattr(equal_cpu, "times_slower", lambda width, *_: (width / 77) ** 2.5)
    asked = config(networks=["kan", "mlp"], learners=["analytic"], match="cpu")
    kan, control = run(asked)["cells"]
    assert "basis" not in kan["setting"]["network"]  # splines
    assert control["kind"] == "random_relu"
    network = control["setting"]["network"]
    assert network["basis"] == "relu"
    assert network["mixing"] == pytest.approx(77, rel=0.021)
    assert control["num_parameters"] == 10 * network["mixing"]
    assert control["per_seed"][0]["average_accuracy"] > 0.5
    monkeypatch.setattr(equal_cpu, "times_slower", lambda *_: pytest.fail("measured again"))
    assert run(asked)["cells"][1]["setting"]["network"] == network


def test_learners_without_a_closed_form_are_refused(config, run) -> None:
    """There an MLP is an MLP, and `latency` is what it may have in common."""
    with pytest.raises(ConfigError, match="has no closed form, and match = 'cpu' is for random units"):
        run(config(networks=["mlp"], match="cpu"))
