"""The monitor: it tells of a broken promise, seldom otherwise, and bounds what it watches at all times."""

import itertools

import numpy as np
import pytest

from kcm.certification.monitoring.monitor import Observations, loss_interval
from kcm.errors import DataError

DELTA = 0.1


def _kept(number, lost, share=1.0):
    """Requests that were all audited at `share`, of which `lost` lost."""
    return [Observations(number - lost, share), Observations(lost, share, share, 1.0, 1.0)]


def _run(rate, *, seed, share=0.2, batches=60, gain=0.0, every=10):
    """Intervals after every tenth batch of 100 requests; `rate` of them lose, `gain` win, audited with `share`."""
    rng = np.random.default_rng(seed)
    counts = dict.fromkeys((-1.0, 0.0, 1.0) if gain else (0.0, 1.0), 0)
    intervals = []
    for batch in range(batches):
        loss = (rng.random(100) < rate).astype(float) - (rng.random(100) < gain)
        loss[rng.random(100) >= share] = 0  # not audited
        for value in counts:
            counts[value] += int((loss == value).sum())
        if batch % every == every - 1:
            seen = [Observations(number, share, share, value, value) for value, number in counts.items()]
            intervals.append(loss_interval(seen, DELTA, credits_wins=gain > 0))
    return intervals


def test_a_broken_promise_is_noticed():
    assert all(_run(0.06, seed=seed)[-1][0] > 0.02 for seed in range(20))


@pytest.mark.parametrize("gain", [0.0, 0.01])
@pytest.mark.slow
def test_kept_promise_seldom_alarms_and_truth_stays_inside(gain):
    runs = [_run(0.02 + gain, seed=seed, gain=gain) for seed in range(150)]
    too_high = [any(low > 0.02 for low, _ in run) for run in runs]
    too_low = [any(high < 0.02 for _, high in run) for run in runs]
    assert sum(too_high) / 150 <= 0.15  # each end at 0.1
    assert sum(too_low) / 150 <= 0.15
    assert all(run[-1][0] > -1 for run in runs)


@pytest.mark.parametrize("end", [0, 1])
def test_truth_is_outside_no_more_often_than_promised(end):
    """Oracle: the probability, over all paths of 200 requests, that an end ever passes the true mean, exactly."""
    true, outside = 0.1, 0.0
    inside_K = np.zeros(202)  # probability of k losses so far, and of the truth inside all the while
    inside_K[0] = 1.0
    edge = 0 if end == 0 else -1  # the first number of losses that is too many, or the last that is too few
    for n in range(1, 201):
        inside_K[1:] = inside_K[1:] * (1 - true) + inside_K[:-1] * true
        inside_K[0] *= 1 - true
        if end == 0:
            edge = next(k for k in itertools.count(edge) if k > n or loss_interval(_kept(n, k), DELTA)[0] > true)
            out = slice(edge, None)
        else:
            while edge < n and loss_interval(_kept(n, edge + 1), DELTA)[1] < true:
                edge += 1
            out = slice(0, edge + 1)
        outside += inside_K[out].sum()
        inside_K[out] = 0
    assert 0.01 < outside <= DELTA


@pytest.mark.parametrize(
    ("number", "lost", "theirs"),
    [
        (100, 0, (0.0, 0.06035)),
        (1000, 20, (0.0082, 0.03954)),
        (1000, 100, (0.07183, 0.13385)),
        (5000, 25, (0.00205, 0.00995)),
        (300, 300, (0.97591, 1.0)),
        (20000, 200, (0.00745, 0.01307)),
    ],
)
def test_it_is_as_narrow_as_a_mixture_over_all_bets(number, lost, theirs):
    """Oracle: `BernoulliCS(alpha=0.2, intersect=False)` of the package ville 0.1.0, a beta-binomial mixture."""
    low, high = loss_interval(_kept(number, lost), DELTA)
    assert low <= lost / number <= high
    assert high - low < 1.05 * (theirs[1] - theirs[0])
    assert low == pytest.approx(theirs[0], abs=0.2 * (theirs[1] - theirs[0]) + 0.013)
    assert high == pytest.approx(theirs[1], abs=0.2 * (theirs[1] - theirs[0]) + 0.013)


@pytest.mark.parametrize("credits_wins", [False, True])
def test_unknown_outcomes_leave_room_for_any_value(credits_wins):
    lowest = -1.0 if credits_wins else 0.0
    known = [Observations(800, 0.5), Observations(80, 0.5, 0.5), Observations(20, 0.5, 0.5, 1.0, 1.0)]
    low, high = loss_interval([*known, Observations(100, 0.5, 0.5, lowest, 1.0)], DELTA, credits_wins=credits_wins)
    for loss in (lowest, 0.0, 0.5, 1.0):
        seen = [*known, Observations(100, 0.5, 0.5, loss, loss)]
        found = loss_interval(seen, DELTA, credits_wins=credits_wins)
        assert low - 1e-6 <= found[0] <= found[1] <= high + 1e-6


def test_audits_weigh_by_their_probability():
    # Losing requests are audited five times as often; unweighted, the loss would seem 0.2 and more.
    rng = np.random.default_rng(0)
    loss = rng.random(20_000) < 0.05
    probability = np.where(loss, 0.5, 0.1)
    audited = rng.random(20_000) < probability
    lost = int((audited & loss).sum())
    assert lost / audited.sum() > 0.2
    low, high = loss_interval([Observations(20_000 - lost, 0.1), Observations(lost, 0.1, 0.5, 1.0, 1.0)], DELTA)
    assert low < 0.05 < high < 0.08


def test_earlier_requests_count_by_the_share_of_their_time():
    low, high = loss_interval([*_kept(4000, 20, 0.05), *_kept(4000, 200, 0.5)], DELTA)
    assert 0.02 < low < 20 / 4000 / 0.05 < high < 0.2  # both halves say that a tenth is lost


def test_nothing_is_known_before_the_first_request():
    assert loss_interval([], DELTA) == (0, 1)
    assert loss_interval([], DELTA, credits_wins=True) == (-1, 1)


@pytest.mark.parametrize(
    "bad",
    [{"probability": 0.4}, {"probability": 1.1}, {"share": 0.0}, {"number": -1}, {"high": 1.5}, {"low": np.nan}],
    ids=str,
)
def test_what_cannot_have_been_seen_is_refused(bad):
    with pytest.raises(DataError, match=r"expected number|must lie in"):
        loss_interval([Observations(**{"number": 1, "share": 0.5} | bad)], DELTA)
