"""Exact tests and their bounds against scipy and MAPIE."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from mapie.risk_control.methods import compute_hoeffding_bentkus_p_value
from scipy.stats import binomtest

from kcm.certification import pvalues


@pytest.mark.parametrize(("lost", "units", "level"), [(0, 114, 0.02), (3, 200, 0.05), (200, 200, 0.5)])
def test_the_binomial_p_value_is_scipys_one_sided_test(lost, units, level):
    expected = binomtest(lost, units, level, alternative="less").pvalue
    assert pvalues.binomial_p_value(lost, units, level) == pytest.approx(expected)


@pytest.mark.parametrize(("lost", "units"), [(0, 50), (3, 200), (49, 50)])
def test_the_binomial_bound_is_scipys_exact_one(lost, units):
    expected = binomtest(lost, units, alternative="less").proportion_ci(0.9, method="exact").high
    assert pvalues.binomial_upper_bound(lost, units, 0.1) == pytest.approx(expected)


@given(st.integers(1, 300), st.floats(0, 1), st.floats(0.01, 0.9))
def test_hoeffding_bentkus_is_mapies(units, share, level):
    total = round(share * units * 4) / 4
    assume(total / units * units == total)  # MAPIE rounds the product up, however little it is above a whole number
    theirs = compute_hoeffding_bentkus_p_value(np.array([total / units]), units, np.array([level]))[0, 0]
    assert pvalues.hoeffding_bentkus_p_value(total, units, level) == pytest.approx(min(theirs, 1), rel=1e-6, abs=1e-12)


@settings(max_examples=50)
@given(st.integers(1, 300), st.floats(0, 1), st.sampled_from([0.05, 0.1]))
def test_a_bound_is_where_its_test_stops_rejecting(units, share, delta):
    total = round(share * units * 4) / 4
    for p_value, upper_bound, lost in (
        (pvalues.binomial_p_value, pvalues.binomial_upper_bound, float(int(total))),
        (pvalues.hoeffding_bentkus_p_value, pvalues.hoeffding_bentkus_upper_bound, total),
    ):
        bound = upper_bound(lost, units, delta)
        assert lost / units <= bound <= 1
        if bound < 1 - 1e-6:
            assert p_value(lost, units, bound + 1e-6) <= delta
            assert p_value(lost, units, bound - 1e-6) > delta


def test_sums_of_thirds_that_make_a_whole_are_not_rounded_up():
    nearly = float(np.nextafter(2, 3))
    assert pvalues.hoeffding_bentkus_p_value(nearly, 100, 0.1) == pytest.approx(
        pvalues.hoeffding_bentkus_p_value(2, 100, 0.1)
    )


@pytest.mark.parametrize(("epsilon", "delta", "fewest"), [(0.02, 0.1, 114), (0.05, 0.1, 45), (0.5, 0.25, 2)])
def test_fewest_units_is_where_a_clean_record_first_passes(epsilon, delta, fewest):
    assert pvalues.fewest_binomial(epsilon, delta) == fewest
    assert pvalues.binomial_p_value(0, fewest, epsilon) <= delta < pvalues.binomial_p_value(0, fewest - 1, epsilon)
    assert pvalues.hoeffding_bentkus_p_value(0, fewest, epsilon) <= delta
