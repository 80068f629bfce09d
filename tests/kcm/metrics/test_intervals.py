"""Intervals against scipy, the likelihood maximised numerically, and repeated draws."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import binomtest, chi2, norm, t

from benchmarks.study.seeds import resampled_mean
from kcm.metrics.intervals import (
    Interval,
    Units,
    accuracy_interval,
    design_effect,
    effective_rows,
    paired_difference,
)


@pytest.mark.parametrize(("right", "rows"), [(0, 5), (5, 5), (37, 50), (1, 1000)])
def test_accuracy_has_scipys_wilson_interval(right, rows):
    correct = np.arange(rows) < right
    interval = accuracy_interval(correct)
    expected = binomtest(right, rows).proportion_ci(method="wilson")
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert interval.estimate == right / rows


def _score_statistic(wins, losses, rows, delta):
    """Squared score statistic at `delta`, its nuisance parameter found by maximising the likelihood numerically."""

    def unlikely(q):
        cells = np.array([q + delta, q, 1 - 2 * q - delta])
        counts = np.array([wins, losses, rows - wins - losses])
        return -sum(n * np.log(max(p, 1e-300)) for n, p in zip(counts, cells, strict=True) if n)

    bounds = (max(0, -delta), (1 - delta) / 2)
    q = minimize_scalar(unlikely, bounds=bounds, method="bounded", options={"xatol": 1e-12}).x
    return (wins - losses - rows * delta) ** 2 / (rows * (2 * q + delta * (1 - delta)))


@pytest.mark.parametrize(("wins", "losses", "rows"), [(4, 9, 60), (1, 12, 40), (30, 10, 200)])
def test_paired_interval_ends_where_the_score_test_rejects(wins, losses, rows):
    first = np.arange(rows) < wins
    second = (np.arange(rows) >= wins) & (np.arange(rows) < wins + losses)
    interval = paired_difference(first, second)
    assert interval.estimate == pytest.approx((wins - losses) / rows)
    for end in (interval.low, interval.high):
        assert _score_statistic(wins, losses, rows, end) == pytest.approx(chi2.ppf(0.95, 1), rel=1e-4)


def test_equal_models_interval_shrinks_with_the_rows():
    z2 = norm.ppf(0.975) ** 2
    for rows in (10, 1000):
        interval = paired_difference(np.ones(rows), np.ones(rows))
        assert (interval.low, interval.high) == pytest.approx((-z2 / (rows + z2), z2 / (rows + z2)), abs=1e-8)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=40))
def test_difference_is_antisymmetric_and_in_its_interval(pairs):
    first, second = np.array(pairs).T
    there, back = paired_difference(first, second), paired_difference(second, first)
    assert -1 <= there.low <= there.estimate <= there.high <= 1
    assert (there.low, there.high) == pytest.approx((-back.high, -back.low), abs=1e-7)


@pytest.mark.slow
def test_paired_intervals_cover_the_true_difference():
    rng = np.random.default_rng(0)
    truth, hits = 0.02 - 0.05, 0
    for _ in range(600):
        draw = rng.random(150)
        interval = paired_difference(draw < 0.02, (draw >= 0.02) & (draw < 0.07))
        hits += interval.low <= truth <= interval.high
    assert 0.93 <= hits / 600 <= 0.99


def test_grouped_rows_cover_where_rows_taken_alone_would_not():
    rng = np.random.default_rng(1)
    hits = {"grouped": 0, "alone": 0}
    group = np.repeat(np.arange(40).astype(str), 10)
    for _ in range(300):
        correct = np.repeat(rng.random(40) < 0.7, 10)  # the rows of a group are copies of each other
        grouped, alone = accuracy_interval(correct, group), accuracy_interval(correct)
        hits["grouped"] += grouped.low <= 0.7 <= grouped.high
        hits["alone"] += alone.low <= 0.7 <= alone.high
    assert hits["grouped"] / 300 >= 0.92
    assert hits["alone"] / 300 <= 0.6


def test_design_effect_compares_unbiased_variances():
    correct = np.repeat([1, 0, 1, 1, 0], 3)
    over_groups, over_rows = correct[::3].var(ddof=1) / 5, correct.var(ddof=1) / 15
    assert design_effect(correct, np.repeat(np.arange(5), 3)) == pytest.approx(over_groups / over_rows)


def test_rows_in_groups_of_one_are_independent_rows():
    correct = np.random.default_rng(0).random(50) < 0.6
    assert design_effect(correct, [None] * 50) == pytest.approx(1)
    few = (norm.ppf(0.975) / t.ppf(0.975, 49)) ** 2
    assert effective_rows(correct, range(50)) == pytest.approx(50 * few)
    assert effective_rows(correct, [None] * 50) == 50


def test_groups_that_are_all_right_count_as_one_row_each():
    assert effective_rows(np.ones(40), np.repeat(np.arange(10), 4)) == pytest.approx(
        10 * (norm.ppf(0.975) / t.ppf(0.975, 9)) ** 2
    )


def test_fold_interval_covers_where_the_plain_one_fails():
    """Cross-validated error of a mean fitted on noise: its true expectation is known."""
    rng, num_rows, num_folds = np.random.default_rng(0), 40, 5
    covered = {"corrected": 0, "plain": 0}
    truth = 1 + 1 / (num_rows * 0.8)
    for _ in range(400):
        y, errors = rng.normal(size=num_rows), []
        for _ in range(10):
            for held_out in np.split(rng.permutation(num_rows), num_folds):
                fitted = np.delete(y, held_out)
                errors.append(np.mean((y[held_out] - fitted.mean()) ** 2))
        for name, share in (("corrected", 1 / (num_folds - 1)), ("plain", 0.0)):
            interval = resampled_mean(errors, share)
            covered[name] += interval.low <= truth <= interval.high
    assert covered["corrected"] / 400 > 0.88
    assert covered["plain"] / 400 < 0.6


def test_groups_are_units_and_a_row_without_one_stands_alone():
    units = Units(np.array(["a", None, "b", "a", None], dtype=object), 5)
    assert units.count == 4
    assert units.code[0] == units.code[3]
    assert len(set(units.code)) == 4
    assert units.size[units.code].tolist() == [2, 1, 1, 2, 1]
    assert units.weights(np.arange(5)).tolist() == [0.5, 1, 1, 0.5, 1]


def test_of_many_rows_whole_units_are_drawn():
    units = Units(np.repeat(np.arange(100), 4).astype(object), 400)
    drawn = units.sample(400, 50, seed=0)
    assert 40 < len(drawn) <= 50
    assert set(np.bincount(units.code[drawn], minlength=100)) == {0, 4}


def test_a_single_group_tells_nothing():
    alone = ["a"] * 5
    assert accuracy_interval(np.ones(5), alone) == Interval(1.0, 0.0, 1.0)
    assert paired_difference(np.ones(5), np.zeros(5), alone) == Interval(1.0, -1.0, 1.0)


def test_two_units_are_drawn_however_large_they_are():
    units = Units(np.repeat(np.arange(3), 100).astype(object), 300)
    assert np.bincount(units.code[units.sample(300, 50, seed=0)]).tolist().count(100) == 2
