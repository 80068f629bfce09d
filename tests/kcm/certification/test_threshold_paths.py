"""Paths over the certify rows: regret, net and calls, against the tests applied threshold by threshold."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from kcm.cascade.frontier import Frontier
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Decision
from kcm.certification.betting import BettingTest
from kcm.certification.certificate import CertificateConfig, certificate_curve, certify
from kcm.certification.pvalues import hoeffding_bentkus_p_value
from kcm.certification.threshold_paths import (
    EitherPath,
    MethodChoice,
    NetPath,
    RegretPath,
    frozen_grid,
)

rows_of = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.booleans()), min_size=1, max_size=40)


def _scored(rows, **columns):
    score, small, large = (np.array(column) for column in zip(*rows, strict=True))
    return ScoredOutcomes(score=score, small_correct=small, large_correct=large, **columns)


def _lost(rows, threshold):
    return (rows.score > threshold) & ~rows.small_correct & rows.large_correct


@settings(max_examples=200)
@given(rows_of, st.floats(0.05, 0.6))
def test_regret_path_ends_before_the_first_failure(rows, epsilon):
    scored = _scored(rows)
    frontier, certified = Frontier.of(scored), math.inf
    for threshold in frontier.thresholds:
        if binom.cdf(_lost(scored, threshold).sum(), len(scored), epsilon) > 0.1:
            break
        certified = threshold
    path = RegretPath(scored, epsilon, 0.1)
    found = path.certified()
    # Between the same two scores any threshold keeps the same rows; without a failure all rows may be kept.
    assert (scored.score > found).tolist() == (scored.score > certified).tolist()
    assert path.p_value(certified) == pytest.approx(binom.cdf(_lost(scored, certified).sum(), len(scored), epsilon))


@settings(max_examples=100)
@given(rows_of, st.integers(1, 4), st.floats(0.1, 0.6))
def test_group_regret_is_the_mean_over_group_means(rows, size, epsilon):
    group = np.array([f"g{i // size}" for i in range(len(rows))], dtype=object)
    scored = _scored(rows, group=group)
    path = RegretPath(scored, epsilon, 0.1)
    names = np.unique(group)
    assert path.num_units == len(names)
    for threshold in (0.5, 3.0):
        lost = _lost(scored, threshold)
        total = sum(lost[group == name].mean() for name in names)
        assert path.p_value(threshold) == pytest.approx(hoeffding_bentkus_p_value(total, len(names), epsilon))
    certified = path.certified()
    if certified < math.inf:
        assert path.p_value(certified) <= 0.1
    below = scored.score[scored.score <= certified]
    if len(below):  # keeping the next score too would fail
        assert path.p_value(np.nextafter(below.max(), -math.inf)) > 0.1


def test_a_failed_large_answer_counts_against_keeping():
    rows = {"score": [1, 2], "small_correct": [0, 0], "large_correct": [0, 0]}
    failed = ScoredOutcomes(**rows, large_error=[True, False])
    assert RegretPath(failed, 0.5, 0.1).p_value(-math.inf) == pytest.approx(binom.cdf(1, 2, 0.5))
    assert RegretPath(ScoredOutcomes(**rows), 0.5, 0.1).p_value(-math.inf) == pytest.approx(binom.cdf(0, 2, 0.5))


def _net_losses(rows, threshold):
    """D of every row by its definition."""
    baseline = rows.certified_baseline
    return baseline.astype(int) - np.where(rows.score > threshold, rows.small_correct, baseline)


@pytest.mark.parametrize("kind", ["plain", "grouped"])
def test_the_net_path_tests_the_difference_to_the_baseline(draw, kind):
    """Promise: bets on the losses against the large model's answers, of rows or of the means of groups."""
    group = np.array([f"g{i % 700}" for i in range(3000)], dtype=object)
    rows = draw(3000, 4, **{"plain": {}, "grouped": {"group": group}}[kind])
    path = NetPath(rows, np.array([0.0]), 0.05, 0.1)
    for threshold in (-0.5, 1.0):
        loss = _net_losses(rows, threshold)
        means = np.array([loss[group == name].mean() for name in dict.fromkeys(group)]) if kind == "grouped" else loss
        x = (1 + means[np.random.default_rng(0).permutation(len(means))]) / 2
        test = BettingTest(lambda start, stop, x=x: x[start:stop], len(x), 0.1)
        assert path.p_value(threshold) == pytest.approx(test.p_value(0.525))
        assert path.upper_bound(threshold) == pytest.approx(2 * test.upper_bound() - 1)


def test_escalated_failure_loses_nothing():
    rows = {"score": np.zeros(300), "small_correct": np.ones(300), "large_correct": np.zeros(300)}
    failed = ScoredOutcomes(**rows, large_error=np.ones(300, dtype=bool))
    path = NetPath(failed, np.array([1.0]), 0.02, 0.1)
    assert path.certified() == 1.0


def test_failure_in_the_grid_hides_thresholds_below():
    """Promise: the net path stops at the first threshold of its grid that fails, though one below it would pass."""
    # Above 0 the small model always loses to the large one, below it always wins: keeping all is no loss on the whole.
    score = np.concatenate([np.full(500, 1.0), np.full(500, -1.0)])
    rows = ScoredOutcomes(score=score, small_correct=score < 0, large_correct=score > 0)
    path = NetPath(rows, np.array([3.0, 2.0, 0.0, -np.inf]), 0.1, 0.1)
    assert path.p_value(-np.inf) < 0.1 < path.p_value(0.0)
    assert path.certified() == 2.0


def test_each_threshold_is_tested_by_whichever_more_samples_pass(draw):
    grid, rows = np.array([1.0, 0.0, -1.0, -np.inf]), draw(400, 1, skill=4, ease=3)
    samples = [draw(400, seed, skill=4, ease=3) for seed in range(2, 9)]
    path = EitherPath(rows, grid, 0.05, 0.1, MethodChoice(samples, 0.05, 0.1))
    alone = {"net": NetPath(rows, grid, 0.05, 0.1), "regret": RegretPath(rows, 0.05, 0.1)}
    methods = [path.method(threshold) for threshold in grid]
    for threshold, method in zip(grid, methods, strict=True):
        by_net = np.array([NetPath(sample, grid, 0.05, 0.1).p_value(threshold) for sample in samples])
        by_regret = np.array([RegretPath(sample, 0.05, 0.1).p_value(threshold) for sample in samples])
        net, regret = (((p <= 0.1).sum(), -p.max()) for p in (by_net, by_regret))
        assert method == ("net" if net > regret else "regret")
        assert path.p_value(threshold) == alone[method].p_value(threshold)
        assert path.upper_bound(threshold) == alone[method].upper_bound(threshold)
    assert set(methods) == {"net", "regret"}
    assert path.fewest_units == alone["regret"].fewest_units < alone["net"].fewest_units


def test_regret_decides_between_grid_thresholds_alone(draw):
    """Where `net` is the test of the threshold that fails, nothing between is tested."""
    rows, samples = draw(400, 1, skill=4, ease=3), [draw(400, seed, skill=4, ease=3) for seed in range(2, 9)]
    alone = RegretPath(rows, 0.05, 0.1).certified()
    grid = np.array([alone + 0.5, alone - 0.5])
    path = EitherPath(rows, grid, 0.05, 0.1, MethodChoice(samples, 0.05, 0.1))
    for method, certified in (("regret", alone), ("net", grid[0])):
        path._choice._methods = {grid[0]: "regret", grid[1]: method}
        if method == "net":
            path.p_value = {grid[0]: 0.0, grid[1]: 1.0}.__getitem__
        assert path.certified() == certified


def test_grid_is_frozen_and_holds_the_searched_threshold(draw):
    validate = draw(5000)
    grid = frozen_grid(Frontier.of(validate), 0.123, beyond=False)
    assert grid[-1] == 0.123
    assert (np.diff(grid) < 0).all()
    kept = np.array([(validate.score > threshold).mean() for threshold in grid[:-1]])
    np.testing.assert_allclose(kept, np.arange(1, len(kept) + 1) / 100)
    beyond = frozen_grid(Frontier.of(validate), 0.123, beyond=True)
    assert beyond[-1] == -math.inf
    assert set(grid) < set(beyond)


@pytest.mark.parametrize("num_rows", [7, 28, 55, 110])
def test_frozen_grid_reaches_the_last_row_despite_rounding(draw, num_rows) -> None:
    frontier = Frontier.of(draw(num_rows, 0))
    assert frozen_grid(frontier, math.inf, beyond=True)[-1] == -math.inf


def curve_of(validate, rows, **changes):
    config = CertificateConfig(epsilon=0.05, delta=0.1, **changes)
    certificate = certify(validate, rows, Decision.of(Frontier.of(validate).cheapest(0.02).threshold), config)
    return certificate, certificate_curve(certificate, validate, rows, config)


def test_the_curve_of_net_reads_the_frozen_grid_and_credits_wins(draw):
    """The deployed threshold is on it, with the bound that its certificate gives."""
    validate, rows = draw(2000, 1), draw(2000)
    certificate, curve = curve_of(validate, rows, method="net")
    assert certificate.threshold in curve["threshold"]
    at = curve["threshold"].index(certificate.threshold)
    assert curve["bound"][at] == pytest.approx(certificate.bound)
    assert curve["p_value"][at] <= 0.1
    keeps = rows.score > certificate.threshold
    cascade = np.where(keeps, rows.small_correct, rows.large_correct)
    assert curve["loss"][at] == pytest.approx(rows.large_correct.mean() - cascade.mean())
    assert curve["call_rate"][at] == pytest.approx(certificate.call_rate)
