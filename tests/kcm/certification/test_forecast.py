"""The forecast of what a certificate leaves: right on average, with an interval that holds, for few rows and many."""

from functools import partial

import numpy as np
import pytest
from scipy.special import expit

from kcm.cascade.gate import Gate
from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.certification.certificate import CertificateConfig, certify_policy
from kcm.certification.forecast import forecast_certificate

CONFIG = CertificateConfig(epsilon=0.03)
GATE = Gate("confidence")
SEARCH = partial(find_policy, gate=GATE, scope="global", max_loss=CONFIG.epsilon)
WORLD = {"skill": 4, "ease": 3, "large": 0.96}


def forecast(rows, num_certify):
    return forecast_certificate(SEARCH, rows, num_certify, CONFIG, CONFIG.delta)


def reached(choosing, certify, truth):
    """Share kept and accuracy in the world, once fresh rows have certified the policy."""
    policy, _ = certify_policy(choosing, certify, SEARCH(choosing).policy, CONFIG)
    kept = policy.keep(truth.score)
    return float(kept.mean()), float(np.where(kept, truth.small_correct, truth.large_correct).mean())


def test_forecasts_are_right_on_average(draw):
    """Promise: over worlds drawn anew the mean error is small, and 80% intervals hold at least two times in three."""
    truth, errors, inside, accuracy_errors = draw(20_000, 999, **WORLD), [], [], []
    for seed in range(24):
        choosing, certify = draw(500, 2 * seed, **WORLD), draw(200, 2 * seed + 1, **WORLD)
        found, (share, accuracy) = forecast(choosing, 200), reached(choosing, certify, truth)
        errors.append(found.keep_rate - share)
        accuracy_errors.append(found.accuracy - accuracy)
        inside.append(found.low <= share <= found.high)
    assert abs(np.mean(errors)) < 0.05
    assert abs(np.mean(accuracy_errors)) < 0.01
    assert np.mean(inside) >= 0.65


def test_too_few_certify_rows_leave_nothing(draw):
    """However many rows choose; with more certify rows a certificate leaves more."""
    rows = draw(3000, 0, **WORLD)
    shares = [forecast(rows, num_certify).keep_rate for num_certify in (60, 200, 1000)]
    assert shares[0] == 0
    assert sorted(shares) == shares
    assert shares[2] > shares[1] > 0


@pytest.mark.parametrize("num_rows", [1, 300])
def test_more_rows_may_certify_than_choose(draw, num_rows):
    rows = draw(num_rows, 0, **WORLD)
    found = forecast(rows, 1500)
    assert 0 <= found.low <= found.keep_rate <= found.high <= 1
    assert (found.keep_rate > 0.2) == (num_rows == 300)


def test_rows_of_a_group_are_drawn_together(draw):
    """Groups of four copies: 240 certify rows are 60 units, too few for any promise."""
    copies = np.repeat(np.arange(400), 4)
    rows = draw(400, 0, **WORLD).select(copies)
    grouped = draw(400, 0, group=copies[::4].astype(object), **WORLD).select(copies)
    assert forecast(grouped, 240).keep_rate == 0
    assert forecast(rows, 240).keep_rate > 0.2


def test_a_task_with_a_threshold_of_its_own_is_forecast(draw):
    tasks = np.array(["easy", "hard"], dtype=object)[np.arange(2000) % 2]
    rows = draw(2000, 0, task=tasks, **WORLD)
    search = partial(find_policy, gate=GATE, scope="per_task", max_loss=CONFIG.epsilon)
    found = forecast_certificate(search, rows, 800, CONFIG, CONFIG.delta)
    assert 0.2 < found.keep_rate < forecast(rows, 800).keep_rate  # each task has half of delta and of the rows


def test_error_of_a_lead_bounds_its_spread():
    """Promise: the standard error of a paired lead bounds the spread of leads over tables drawn anew, within reason."""
    leads, errors = [], []
    for seed in range(24):
        first, second = (forecast(rows, 200) for rows in rivals(500, seed))
        lead, error = first.lead(second, "keep_rates")
        leads.append(lead)
        errors.append(error)
    assert 1 < np.sqrt(np.mean(np.square(errors))) / np.std(leads, ddof=1) < 3


def rivals(num_rows, seed):
    """The same rows as two small models of equal skill score and answer them."""
    rng = np.random.default_rng(seed)
    ease, luck, large = rng.normal(size=num_rows), rng.random(num_rows), rng.random(num_rows) < WORLD["large"]
    for _ in range(2):
        yield ScoredOutcomes(
            score=ease + 0.2 * rng.normal(size=num_rows),
            small_correct=luck < expit(WORLD["ease"] + WORLD["skill"] * ease),
            large_correct=large,
        )
