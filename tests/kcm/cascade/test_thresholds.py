"""Thresholds lie between the scores that they separate."""

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from kcm.cascade.thresholds import midway

any_float = st.floats(allow_nan=False, allow_infinity=False, allow_subnormal=True)


@given(any_float, any_float)
@example(1.0, float(np.nextafter(1, 2)))
@example(float(np.nextafter(1, 2)), float(np.nextafter(np.nextafter(1, 2), 2)))
def test_threshold_separates_adjacent_float_scores(a, b):
    lower, upper = min(a, b), max(a, b)
    if lower < upper:
        middle = midway(np.array([upper]), np.array([lower]))[0]
        assert lower <= middle < upper
