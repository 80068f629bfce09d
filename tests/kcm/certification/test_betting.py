"""The betting test against its formula written out row by row, and against repeated draws under the null."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.certification.betting import BettingTest, p_values


def _test(values, delta=0.1):
    values = np.asarray(values, dtype=float)
    return BettingTest(lambda start, stop: values[start:stop], len(values), delta)


def _wealths(values, level, delta):
    """K_1 .. K_n by the recursion as published, one row after the other."""
    n, wealth, total, squares, variance = len(values), 1.0, 0.5, 0.25, 0.25
    for i, x in enumerate(values, 1):
        nu = min(0.9 / (1 - level), math.sqrt(2 * math.log(1 / delta) / (n * variance)))
        wealth *= 1 - nu * (x - level)
        yield wealth
        total += x
        squares += (x - total / (i + 1)) ** 2
        variance = squares / (i + 1)


halves = st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=80)


@given(halves, st.floats(0.05, 0.95), st.sampled_from([0.05, 0.1]))
def test_the_p_value_is_one_over_the_largest_wealth(values, level, delta):
    wealths = list(_wealths(values, level, delta))
    assert _test(values, delta).p_value(level) == pytest.approx(min(1, 1 / max(wealths)), rel=1e-9)
    assert _test(values, delta).rejects(level) == (max(wealths) >= 1 / delta)


def test_samples_are_tested_together_as_alone():
    """Of more units than one block of the single test holds."""
    values_SU = np.random.default_rng(0).choice([0.0, 0.5, 1.0], p=[0.06, 0.91, 0.03], size=(5, 3000))
    alone = [_test(values).p_value(0.49) for values in values_SU]
    assert p_values(values_SU, 0.49, 0.1) == pytest.approx(alone, rel=1e-9)
    assert 0 < min(alone) < max(alone) < 1


@settings(max_examples=40)
@given(halves, st.sampled_from([0.05, 0.1]))
def test_the_bound_is_where_the_test_stops_rejecting(values, delta):
    test = _test(values, delta)
    bound = test.upper_bound()
    if bound < 1:
        assert test.rejects(bound + 1e-6)
    assert not test.rejects(min(bound, 1 - 1e-6) - 1e-6)


def test_a_true_null_is_rejected_no_more_often_than_delta():
    rng = np.random.default_rng(0)
    rejected = sum(_test(rng.choice([0, 0.5, 1], p=[0.02, 0.94, 0.04], size=400)).rejects(0.51) for _ in range(1000))
    assert 0.005 < rejected / 1000 <= 0.116
