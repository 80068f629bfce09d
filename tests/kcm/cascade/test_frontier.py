"""The frontier against every threshold tried one by one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes

rows_of = st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.booleans()), min_size=1, max_size=25)


def _scored(rows):
    score, small, large = (np.array(column) for column in zip(*rows, strict=True))
    return ScoredOutcomes(score=score, small_correct=small, large_correct=large)


def _route(rows, threshold):
    """Call rate and accuracy of a threshold, by its definition."""
    kept = rows.score > threshold
    return 1 - kept.mean(), np.where(kept, rows.small_correct, rows.large_correct).mean()


@given(rows_of)
def test_the_frontier_holds_every_route_there_is(rows):
    scored = _scored(rows)
    frontier = Frontier.of(scored)
    every = {_route(scored, t) for t in [np.inf, -np.inf, *scored.score]}
    assert set(zip(frontier.call_rate, frontier.accuracy, strict=True)) == every
    for threshold, rate, accuracy in zip(frontier.thresholds, frontier.call_rate, frontier.accuracy, strict=True):
        assert (rate, accuracy) == _route(scored, threshold)


@given(rows_of, st.floats(-1, 1))
def test_cheapest_route_calls_least_within_the_loss(rows, max_loss):
    scored = _scored(rows)
    point = Frontier.of(scored).cheapest(max(max_loss, 0))
    allowed = [
        _route(scored, t)[0]
        for t in [np.inf, -np.inf, *scored.score]
        if scored.large_correct.mean() - _route(scored, t)[1] <= max(max_loss, 0) + 1e-9
    ]
    assert point.call_rate == min(allowed)
    assert point.loss <= max(max_loss, 0) + 1e-9


@given(rows_of, st.floats(-1, 6))
def test_any_threshold_is_located_exactly(rows, threshold):
    scored = _scored(rows)
    point = Frontier.of(scored).at(threshold)
    assert (point.call_rate, point.accuracy) == pytest.approx(_route(scored, threshold))
    assert point.threshold == threshold


def test_the_area_is_the_trapezoid_worked_by_hand():
    # Kept in this order: win, nothing, loss; accuracies 1/3, 2/3, 2/3, 1/3 at call rates 1, 2/3, 1/3, 0.
    frontier = Frontier.of(ScoredOutcomes(score=[3, 2, 1], small_correct=[1, 0, 0], large_correct=[0, 0, 1]))
    assert frontier.accuracy.tolist() == pytest.approx([1 / 3, 2 / 3, 2 / 3, 1 / 3])
    assert frontier.area() == pytest.approx((1 / 2 + 2 / 3 + 1 / 2) / 3)


def test_allowed_loss_is_met_despite_float_rounding():
    # Keeping all loses 29 rows of 100, and 29 - 0.29 * 100 is not 0 in floats.
    rows = ScoredOutcomes(score=np.zeros(100), small_correct=np.zeros(100), large_correct=np.arange(100) < 29)
    assert 29 - 0.29 * 100 > 0
    assert Frontier.of(rows).cheapest(0.29).threshold == -np.inf
    assert Frontier.of(rows).cheapest(0.28).threshold == np.inf
