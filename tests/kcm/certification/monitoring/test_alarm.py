"""An alarm is false no more often than promised, over any time, and a long good past does not delay a true one."""

import math

import numpy as np
import pytest

from kcm.certification.monitoring.alarm import RateAlarm
from kcm.errors import DataError


def audited(rate: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Y of decisions with the event at `rate` [N], looked at with probability `share`."""
    return ((rng.random(len(rate)) < rate) & (rng.random(len(rate)) < share)) / share


def written_out(y: np.ndarray, share: float, limit: float) -> float:
    """The e-value as the module's text says, decision by decision."""
    total = 0.0
    for multiple, part in zip((1.5, 2.0, 4.0, 10.0), (0.2, 0.5, 0.2, 0.1), strict=True):
        bet = (multiple - 1) * share / (1 - share * limit)
        cash, stake, suspicion = 1.0, 0.0, 0.0
        for value in y:
            factor = 1 + bet * (value - limit)
            stake *= factor
            before, suspicion = suspicion, max(0.0, suspicion + math.log(factor))
            if before == 0 and suspicion > 0:
                stake = cash**2
                cash -= stake
            if suspicion == 0:
                cash, stake = cash + stake, 0.0
        total += part * (cash + stake)
    return total


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.12])
def test_the_e_value_is_what_is_left_of_stakes_and_cash(rate: float) -> None:
    rng = np.random.default_rng(0)
    y = audited(np.full(3500, rate), 0.2, rng)
    alarm = RateAlarm(0.05, 0.1)
    for part in np.array_split(y, 7):
        alarm.observe(part, 0.2)
    assert alarm.e_value == pytest.approx(written_out(y, 0.2, 0.05), rel=1e-9)


def test_mean_wealth_is_at_most_one_at_the_limit() -> None:
    """Ville's inequality needs no more than this of the wealth at any time."""
    rng = np.random.default_rng(5)
    values = []
    for _ in range(1200):
        alarm = RateAlarm(0.1, 0.1)
        alarm.observe(audited(np.full(400, 0.1), 0.5, rng), 0.5)
        values.append(alarm.e_value)
    error = np.std(values) / math.sqrt(len(values))
    assert np.mean(values) == pytest.approx(1.0, abs=4 * error)


def test_false_alarms_stay_below_delta_if_share_is_raised() -> None:
    rng = np.random.default_rng(1)
    false = 0
    for _ in range(200):
        rate = np.full(20_000, 0.02)
        share = np.where(np.arange(20_000) < 10_000, 0.05, 0.2)
        y = ((rng.random(20_000) < rate) & (rng.random(20_000) < share)) / share
        alarm = RateAlarm(0.02, 0.1)
        alarm.observe(y, share)
        false += alarm.alarm
    assert false <= 0.1 * 200


def test_good_past_delays_the_alarm_by_its_logarithm() -> None:
    rng = np.random.default_rng(2)
    delays = {}
    for past in (10_000, 1_000_000):
        alarm = RateAlarm(0.02, 0.1)
        alarm.observe(np.zeros(past), 0.05)
        before = alarm.num_decisions
        assert not alarm.alarm
        while not alarm.alarm and alarm.num_decisions < before + 200_000:
            alarm.observe(audited(np.full(500, 0.08), 0.05, rng), 0.05)
        delays[past] = alarm.num_decisions - before
    assert delays[1_000_000] < 4 * delays[10_000]
    assert delays[1_000_000] < 20_000


def test_it_goes_on_where_it_was_saved() -> None:
    rng = np.random.default_rng(4)
    y = audited(np.full(4_321, 0.03), 0.5, rng)
    whole, first, second = (RateAlarm(0.02, 0.1) for _ in range(3))
    whole.observe(y, 0.5)
    first.observe(y[:1_234], 0.5)
    second.load_state_dict(first.state_dict())
    second.observe(y[1_234:], 0.5)
    assert second.e_value == pytest.approx(whole.e_value)
    assert second.largest == pytest.approx(whole.largest)


@pytest.mark.parametrize(("y", "share"), [(21.0, 0.05), (-1.0, 0.5), (0.0, 0.0)])
def test_events_that_cannot_be_are_refused(y: float, share: float) -> None:
    """With Y > 1 / share a stake may fall below 0, and no bound on false alarms is left."""
    with pytest.raises(DataError):
        RateAlarm(0.02, 0.1).observe([y], share)


def test_a_limit_near_one_leaves_something_to_bet() -> None:
    alarm = RateAlarm(0.9, 0.1)
    alarm.observe(np.ones(500))
    alarm.observe(np.zeros(1))
    assert alarm.alarm
    assert math.isfinite(alarm.e_value)
