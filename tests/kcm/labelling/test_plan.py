"""A plan's forecast holds in simulated draws, and no larger draw is much cheaper."""

import numpy as np
import pytest

from kcm.certification.finite import afforded_errors, longest_prefix
from kcm.labelling.plan import cheapest_plan

DELTA = 0.04


def simulated_calls(num_units: int, rate: float, allowed: int, num_drawn: int) -> float:
    """Mean calls over draws from all units, which are wrong at random."""
    rng = np.random.default_rng(0)
    most = afforded_errors(num_units, num_drawn, allowed, DELTA)
    calls = []
    for _ in range(40):
        wrong = rng.random(num_units) < rate
        places = np.sort(rng.choice(num_units, num_drawn, replace=False))
        length = longest_prefix(places, wrong[places], num_units, most)
        calls.append(num_units - length + int(np.searchsorted(places, length)))
    return float(np.mean(calls))


@pytest.mark.parametrize(("num_units", "rate", "allowed"), [(10_000, 0.07, 500), (2000, 0.1, 150)])
def test_plan_is_met_and_near_the_best(num_units: int, rate: float, allowed: int) -> None:
    """Promise: many errors are afforded if that saves calls; a plan of at most 64 errors would cost 8% more."""
    plan = cheapest_plan(np.full(num_units, rate), allowed, DELTA)
    assert simulated_calls(num_units, rate, allowed, plan.num_drawn) == pytest.approx(plan.calls, rel=0.04)
    for num_drawn in (num_units // 10, num_units // 5, num_units // 3, num_units // 2):
        assert plan.calls < 1.03 * simulated_calls(num_units, rate, allowed, num_drawn)
