from __future__ import annotations

import pytest

from pipelines.serve.cascade.breaker import Breaker, BreakerConfig


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


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        assert breaker.admits()
        breaker.failed()


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert breaker.state == "open"
    assert not breaker.admits()


def test_a_success_between_them_starts_the_count_again(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.succeeded()
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_after_its_rest_one_call_alone_tries(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 9.9
    assert not breaker.admits()
    clock.now += 0.2
    assert breaker.state == "half_open"
    assert [breaker.admits(), breaker.admits()] == [True, False]


def test_the_trial_decides(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 11
    assert breaker.admits()
    breaker.failed()
    assert breaker.state == "open"
    clock.now += 11
    assert breaker.admits()
    breaker.succeeded()
    assert breaker.state == "closed"
    fail(breaker, 2)
    assert breaker.state == "closed"


def test_a_trial_that_tells_nothing_leaves_room_for_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 11
    assert breaker.admits()
    breaker.abandoned()
    assert breaker.admits()


def test_calls_from_before_it_opened_change_nothing(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    breaker.succeeded()
    assert breaker.state == "open"
    clock.now += 9
    breaker.failed()
    clock.now += 1
    assert breaker.state == "half_open"
