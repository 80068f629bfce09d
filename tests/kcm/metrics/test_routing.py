"""Router metrics by hand, by counting pairs, and where there is no gap to recover."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.metrics import routing

# Small alone 0.5, large alone 0.9; half of the calls recover three quarters of the gap.
RATE = [1.0, 0.5, 0.0]
ACCURACY = [0.9, 0.8, 0.5]


def test_recovered_gap_is_zero_for_small_and_one_for_large():
    assert routing.performance_gap_recovered(0.5, 0.5, 0.9) == 0
    assert routing.performance_gap_recovered(0.9, 0.5, 0.9) == pytest.approx(1)
    assert routing.performance_gap_recovered(0.95, 0.5, 0.9) > 1


def test_average_recovery_is_the_area_worked_by_hand():
    trapezoids = 0.5 * (0 + 0.75) / 2 + 0.5 * (0.75 + 1) / 2
    assert routing.apgr(RATE, ACCURACY) == pytest.approx(trapezoids)
    assert routing.apgr(RATE[::-1], ACCURACY[::-1]) == pytest.approx(trapezoids)


@pytest.mark.parametrize("small", [0.9, 0.95], ids=["equal", "small better"])
def test_without_a_gap_nothing_is_recovered(small):
    accuracy = [0.9, 0.92, small]
    assert routing.performance_gap_recovered(0.92, small, 0.9) is None
    assert routing.apgr(RATE, accuracy) is None


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=25))
def test_auroc_is_the_share_of_pairs_in_order(rows):
    right = [score for score, correct in rows if correct]
    wrong = [score for score, correct in rows if not correct]
    pairs = list(itertools.product(right, wrong))
    expected = sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs) if pairs else None
    found = routing.auroc([score for score, _ in rows], [correct for _, correct in rows])
    assert found == (None if expected is None else pytest.approx(expected))


@settings(max_examples=40)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=8))
def test_no_route_beats_the_oracle_and_none_as_good_calls_less(pairs):
    small, large = np.array(pairs).T
    oracle = routing.oracle_router(small, large)
    routes = [np.array(route) for route in itertools.product([False, True], repeat=len(pairs))]
    best = max(np.where(route, large, small).mean() for route in routes)
    cheapest = min(route.mean() for route in routes if np.where(route, large, small).mean() == best)
    assert oracle == (best, cheapest)


def test_cost_counts_the_small_side_for_every_row():
    kept, large_cost = [True, True, False, False], [1.0, 2.0, 3.0, 4.0]
    assert routing.cost_saved(kept, large_cost) == pytest.approx(0.3)
    assert routing.cost_saved(kept, large_cost, 0.5) == pytest.approx(1 - (2 + 7) / 10)
    assert routing.cost_saved(kept, large_cost, [0.1, 0.2, 0.3, 0.4]) == pytest.approx(1 - (1 + 7) / 10)


@pytest.mark.parametrize("count", [0, 1, 299, 300, 301, 100_000])
def test_a_thinned_curve_keeps_its_ends_and_even_steps(count):
    positions = routing.thinned(count, 300)
    assert len(positions) == min(count, 300)
    if count:
        assert (positions[0], positions[-1]) == (0, count - 1)
    assert np.ptp(np.diff(positions)) <= 1 if count > 1 else True
