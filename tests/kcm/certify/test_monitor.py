"""The monitor: alarms when the promise is broken, seldom otherwise, and bounds what it watches at all times."""

import math

import numpy as np
import pytest

from kcm.certify.monitor import AuditMonitor
from kcm.errors import ConfigError, DataError


def _run(rate, *, seed, epsilon=0.02, probability=0.2, batches=60, gain=0.0):
    """A monitor after 60 batches of 100 requests; `rate` of them lose, `gain` win, each audited with `probability`."""
    rng = np.random.default_rng(seed)
    monitor = AuditMonitor(epsilon, 0.1, probability, credits_wins=gain > 0)
    covered, alarm = True, False
    for _ in range(batches):
        loss = (rng.random(100) < rate).astype(float) - (rng.random(100) < gain)
        monitor.observe(rng.random(100) < probability, np.full(100, probability), loss)
        covered &= monitor.low <= rate - gain <= monitor.high
        alarm |= monitor.alarm
    return monitor, covered, alarm


def test_a_broken_promise_is_noticed():
    assert all(_run(0.06, seed=seed)[2] for seed in range(20))


@pytest.mark.parametrize("gain", [0.0, 0.01])
def test_a_promise_that_just_holds_seldom_alarms_and_the_truth_stays_inside(gain):
    runs = [_run(0.02 + gain, seed=seed, gain=gain) for seed in range(150)]
    assert sum(alarm for *_, alarm in runs) / 150 <= 0.15
    assert sum(not covered for _, covered, _ in runs) / 150 <= 0.25  # two ends, each at 0.1
    assert min(monitor.low for monitor, *_ in runs) > -1


def test_wins_are_credited_only_where_asked_for():
    monitor, _, alarm = _run(0.06, seed=0, gain=0.05, epsilon=0.03, batches=100)
    assert not alarm
    assert monitor.low < 0.01 < monitor.high


def test_audits_weigh_by_their_probability():
    # Losing requests are audited five times as often; unweighted, the loss would seem 0.2 and more.
    rng = np.random.default_rng(0)
    monitor = AuditMonitor(0.02, 0.1, 0.1)
    for _ in range(100):
        loss = rng.random(200) < 0.05
        probability = np.where(loss, 0.5, 0.1)
        monitor.observe(rng.random(200) < probability, probability, loss)
    assert monitor.low < 0.05 < monitor.high < 0.08


def test_the_upper_end_narrows_with_the_audits():
    highs = [_run(0.0, seed=0, batches=batches)[0].high for batches in (1, 20, 200)]
    assert highs == sorted(highs, reverse=True)
    assert highs[-1] < 0.005


def test_idle_requests_may_come_in_any_number():
    together, apart = AuditMonitor(0.02, 0.1, 0.5), AuditMonitor(0.02, 0.1, 0.5)
    together.observe(np.zeros(10, bool), np.full(10, math.nan), np.full(10, math.nan))
    for _ in range(10):
        apart.observe([False], [math.nan], [math.nan])
    assert together.num_requests == apart.num_requests == 10
    assert together.num_audited == 0
    assert together.low == apart.low == 0


def test_nothing_is_known_before_the_first_request():
    monitor = AuditMonitor(0.02, 0.1, 0.5)
    assert (monitor.low, monitor.high, monitor.alarm) == (0, 1, False)


def test_an_audit_outside_what_was_announced_is_refused_and_changes_nothing():
    monitor = AuditMonitor(0.02, 0.1, 0.5)
    for probability, loss in ((0.4, 1.0), (1.1, 1.0), (math.nan, 1.0), (0.5, 1.5), (0.5, -1.0), (0.5, math.nan)):
        with pytest.raises(DataError, match="must lie in"):
            monitor.observe([True], [probability], [loss])
    assert monitor.num_requests == 0


@pytest.mark.parametrize("bad", [{"epsilon": 0}, {"delta": 1.5}, {"min_audit_probability": -0.1}])
def test_a_monitor_that_promises_nothing_is_refused(bad):
    values = {"epsilon": 0.02, "delta": 0.1, "min_audit_probability": 0.1, **bad}
    with pytest.raises(ConfigError, match=f"{next(iter(bad))} must lie in"):
        AuditMonitor(**values)
