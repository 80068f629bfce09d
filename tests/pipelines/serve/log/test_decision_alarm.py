"""The alarm bets on every decision once: looks, late outcomes and their selection give it one delta and no more."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest

from pipelines.serve.log.alarm import DecisionAlarm
from pipelines.serve.log.decisions import Event

START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND, WAIT = timedelta(seconds=1), timedelta(minutes=10)


def history(number: int, rate: float, seed: int, share: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Whether each of the decisions, a second apart, is a loss that is drawn, and the seconds that its outcome takes.

    Half of the outcomes of losses take up to twice as long as an outcome may; those of the others come sooner.
    """
    rng = np.random.default_rng(seed)
    lost_N = rng.random(number) < rate * share
    return lost_N, np.where(lost_N, rng.uniform(0, 1200, number), rng.uniform(0, 60, number))


def seen(lost_N: np.ndarray, late_N: np.ndarray, after: int, now: int, share: float = 1.0) -> list[Event]:
    """What the log says at second `now` of the decisions above a number; numbers are from 1, and seconds too."""
    known_N = np.arange(1, len(lost_N) + 1) + late_N <= now
    return [
        Event(
            place + 1, share, bool(lost_N[place] and known_N[place]), bool(known_N[place]), START + (place + 1) * SECOND
        )
        for place in range(after, min(now, len(lost_N)))
    ]


def watched(
    lost_N: np.ndarray, late_N: np.ndarray, looks: list[int], limit: float, share: float = 1.0
) -> DecisionAlarm:
    alarm = DecisionAlarm(limit, 0.1, label_free=True, wait=WAIT)
    for now in looks:
        alarm.advance(seen(lost_N, late_N, alarm.after, now, share), START + now * SECOND)
    return alarm


def test_looks_at_any_times_are_looks_at_one_sequence() -> None:
    """Promise: with outcomes that come in time, the wealth does not depend on when and how often one looks."""
    lost_N, late_N = history(3000, 0.05, seed=1)
    late_N = np.minimum(late_N, 599)
    end, rng = 3700, np.random.default_rng(2)
    once = watched(lost_N, late_N, [end], 0.05)
    assert once.num_decisions == 3000
    for number in (1, 40, 700):
        looks = sorted(rng.integers(1, end, number).tolist())
        often = watched(lost_N, late_N, [*looks, end], 0.05)
        assert often.num_decisions == 3000
        assert often.e_value == pytest.approx(once.e_value)


def test_decision_is_bet_on_once_and_late_outcomes_ignored() -> None:
    """Promise: a decision is bet on once and what comes too late changes nothing."""
    alarm = DecisionAlarm(0.05, 0.1, label_free=True, wait=WAIT)
    events = [Event(number, 1.0, False, number != 3, START) for number in range(1, 6)]
    assert not alarm.advance(events, START + WAIT - SECOND)
    assert (alarm.after, alarm.num_decisions) == (2, 2)
    assert alarm.advance(events[2:], START + WAIT)
    before = alarm.state_dict()
    assert alarm.advance([], START + WAIT)
    assert (alarm.after, alarm.num_decisions, alarm.state_dict()) == (5, 5, before)


@pytest.mark.parametrize(("ahead", "is_awaited"), [(SECOND, True), (timedelta(days=3650), False)])
def test_outcomes_are_awaited_unless_a_clock_jumped(ahead: timedelta, is_awaited: bool) -> None:
    """Promise: neither a clock that is slightly ahead nor one that jumped silences the alarm."""
    alarm = DecisionAlarm(0.05, 0.1, label_free=True, wait=WAIT)
    assert alarm.advance([Event(1, 1.0, False, False, START + ahead)], START) != is_awaited


@pytest.mark.parametrize("share", [1.0, 0.2])
def test_late_selected_outcomes_keep_the_false_alarm_rate(share: float) -> None:
    """Promise: with a loss of the limit, losses known late and looks all the time, at most delta of runs are false.

    Re-reading what is not settled would count the best of many sequences.
    """
    false = 0
    for seed in range(80):
        lost_N, late_N = history(2000, 0.1, seed, share)
        false += watched(lost_N, np.minimum(late_N, 599), list(range(60, 2700, 120)), 0.1, share).alarm
    assert false <= 0.1 * 80 + 2 * np.sqrt(0.1 * 0.9 * 80)


def test_alarm_rises_although_half_of_losses_come_late() -> None:
    """Promise: the alarm comes although half of the losses are known too late."""
    raised = 0
    for seed in range(20):
        raised += watched(*history(3000, 0.4, seed), list(range(60, 3700, 60)), 0.1).alarm
    assert raised == 20


def test_a_state_goes_on_and_one_of_another_promise_does_not() -> None:
    lost_N, late_N = history(500, 0.05, seed=3)
    alarm = watched(lost_N, late_N * 0, [300], 0.05)
    other = DecisionAlarm(0.05, 0.1, label_free=True, wait=WAIT)
    other.load_state_dict(alarm.state_dict())
    for each in (alarm, other):
        each.advance(seen(lost_N, late_N * 0, each.after, 500), START + 500 * SECOND)
    assert other.state_dict() == alarm.state_dict()
    stricter = DecisionAlarm(0.01, 0.1, label_free=True, wait=WAIT)
    stricter.load_state_dict(alarm.state_dict())
    assert (stricter.after, stricter.num_decisions) == (0, 0)
