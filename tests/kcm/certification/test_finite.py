"""The test of one finite table, against scipy's distribution and against tables at the boundary."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import hypergeom

from kcm.certification.finite import afforded_errors, allowed_errors, fewest_drawn, longest_prefix, missed_errors


@pytest.mark.parametrize(
    ("target", "rows", "allowed"), [(0.9, 1000, 100), (0.95, 1000, 50), (0.95, 855, 42), (0.999, 10, 0), (0.7, 10, 3)]
)
def test_allowed_errors_are_exact_decimals(target: float, rows: int, allowed: int) -> None:
    """floor((1 - .9) * 1000) is 100; floats make it 99."""
    assert allowed_errors(target, rows) == allowed


@settings(max_examples=60, deadline=None)
@given(st.integers(5, 2000), st.integers(0, 400), st.floats(0, 1), st.sampled_from([0.01, 0.05, 0.1]))
def test_fewest_drawn_is_the_least_that_scipy_passes(units: int, errors: int, share: float, delta: float) -> None:
    """One draw less fails, the draw itself passes; units + 1 says that none does."""
    allowed = int(share * units)

    def passes(drawn: int) -> bool:
        bad = allowed + errors + 1
        return bad <= units and drawn <= units and hypergeom.cdf(errors, units, bad, drawn) <= delta * (1 - 1e-6)

    drawn = int(fewest_drawn(units, errors, allowed, delta))
    assert passes(drawn) or drawn == units + 1
    assert drawn == 0 or not passes(drawn - 1)


def test_afforded_errors_fit_the_fewest_drawn() -> None:
    """A draw that was made for x errors affords x of them, and one unit less does not."""
    drawn = int(fewest_drawn(10_000, 8, 500, 0.05))
    assert afforded_errors(10_000, drawn, 500, 0.05) == 8
    assert afforded_errors(10_000, drawn - 1, 500, 0.05) == 7


def test_a_prefix_ends_before_the_first_error_too_many() -> None:
    places, wrong = [2, 5, 7, 9], [True, False, True, True]
    assert [longest_prefix(places, wrong, 12, most) for most in (-1, 0, 1, 2, 3)] == [0, 2, 7, 9, 12]


def test_missed_errors_bound_is_the_largest_not_rejected() -> None:
    """With W + 1 errors so few drawn ones would be too unlikely, with W they are not."""
    missed = missed_errors(500, 60, 2, 0.05)
    assert hypergeom.cdf(2, 500, missed + 2, 60) > 0.05 >= hypergeom.cdf(2, 500, missed + 3, 60)
    assert missed_errors(500, 0, 0, 0.05) == 500
    assert missed_errors(40, 40, 3, 0.05) == 0


@pytest.mark.parametrize("placed", ["early", "spread", "late"])
def test_prefixes_break_the_promise_as_often_as_delta(placed: str) -> None:
    """Tables with A + x* + 1 errors, the worst case: some prefix that holds has more than A undrawn errors in at most
    a share delta of draws, up to noise (three standard deviations of 2,000 draws)."""
    units, allowed, delta, rng = 300, 20, 0.1, np.random.default_rng(0)
    drawn = int(fewest_drawn(units, 3, allowed, delta))
    most = afforded_errors(units, drawn, allowed, delta)
    count = allowed + most + 1
    errors = np.zeros(units, dtype=bool)
    errors[
        {"early": np.arange(count), "late": np.arange(units - count, units)}.get(
            placed, np.linspace(0, units - 1, count).astype(int)
        )
    ] = True
    broken = 0
    for _ in range(2000):
        places = np.sort(rng.choice(units, drawn, replace=False))
        length = longest_prefix(places, errors[places], units, most)
        missed = errors[:length].sum() - errors[places[places < length]].sum()
        broken += bool(missed > allowed)
    assert broken <= 2000 * delta + 3 * (2000 * delta * (1 - delta)) ** 0.5
