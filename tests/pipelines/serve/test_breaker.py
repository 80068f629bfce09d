from __future__ import annotations

import pytest

from pipelines.serve.breaker import Breaker, BreakerConfig, Call


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(BreakerConfig(failures=3, rest_s=10.0), clock)


def admitted(breaker: Breaker) -> Call:
    call = breaker.admit()
    assert call is not None
    return call


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        admitted(breaker).failed()


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert breaker.admit() is None


def test_a_success_between_them_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    admitted(breaker).succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_after_its_rest_one_call_alone_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 9.9
    assert breaker.admit() is None
    clock.now += 0.2
    assert breaker.state == "half_open"
    admitted(breaker)
    assert breaker.admit() is None


def test_of_twenty_requests_at_once_half_open_lets_one_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for _ in range(3):  # it fails again, and again one of twenty tries
        clock.now += 10.0
        calls = [call for _ in range(20) if (call := breaker.admit())]
        assert len(calls) == 1
        calls[0].failed()
    clock.now += 10.0
    admitted(breaker).succeeded()
    assert all(breaker.admit() for _ in range(20))


def test_the_trial_decides(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 11
    admitted(breaker).failed()
    assert breaker.state == "open"
    clock.now += 11
    admitted(breaker).succeeded()
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_trial_that_tells_nothing_leaves_room_for_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 11
    admitted(breaker).abandoned()
    admitted(breaker)


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "abandoned"])
def test_calls_from_before_it_opened_change_nothing(breaker: Breaker, clock: Clock, outcome: str) -> None:
    """Neither while it rests, nor while one call tries: however many of them end then, no other is admitted."""
    late = [admitted(breaker) for _ in range(12)]
    fail(breaker, 3)
    for call in late[:6]:
        getattr(call, outcome)()
    assert breaker.state == "open"
    clock.now += 11
    trial = admitted(breaker)
    for call in late[6:]:
        getattr(call, outcome)()
        assert (breaker.state, breaker.admit()) == ("half_open", None)
    trial.succeeded()
    assert breaker.state == "closed"
