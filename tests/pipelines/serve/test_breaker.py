"""A breaker opens, rests and tries again; callers have rates; a wall clock that jumps changes neither."""

import pytest

from pipelines.serve.breaker import Breaker, BreakerConfig, RateLimit, TokenBucket


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


def admitted(breaker: Breaker) -> int:
    call = breaker.admit()
    assert call is not None
    return call


def fail(breaker: Breaker, times: int) -> None:
    for _ in range(times):
        breaker.record(admitted(breaker), False)


def test_it_opens_after_failures_in_a_row(breaker: Breaker) -> None:
    fail(breaker, 2)
    breaker.record(admitted(breaker), True)  # the count begins again
    fail(breaker, 2)
    assert breaker.state == "closed"
    fail(breaker, 1)
    assert (breaker.state, breaker.admit()) == ("open", None)


def test_of_twenty_requests_at_once_half_open_lets_one_through(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    for _ in range(3):  # it fails again, and again one of twenty tries
        clock.now += 10.0
        calls = [call for _ in range(20) if (call := breaker.admit())]
        assert len(calls) == 1
        breaker.record(calls[0], False)
    clock.now += 10.0
    breaker.record(admitted(breaker), True)
    assert all(breaker.admit() for _ in range(20))


def test_a_trial_that_tells_nothing_leaves_room_for_another(breaker: Breaker, clock: Clock) -> None:
    fail(breaker, 3)
    clock.now += 11
    breaker.record(admitted(breaker), None)
    admitted(breaker)


@pytest.mark.parametrize("succeeded", [True, False, None])
def test_calls_from_before_it_opened_change_nothing(breaker: Breaker, clock: Clock, succeeded: bool | None) -> None:
    """Neither while it rests, nor while one call tries: however many of them end then, no other is admitted."""
    late = [admitted(breaker) for _ in range(12)]
    fail(breaker, 3)
    for call in late[:6]:
        breaker.record(call, succeeded)
    assert breaker.state == "open"
    clock.now += 11
    trial = admitted(breaker)
    for call in late[6:]:
        breaker.record(call, succeeded)
        assert (breaker.state, breaker.admit()) == ("half_open", None)
    breaker.record(trial, True)
    assert breaker.state == "closed"


def test_caller_may_burst_its_minute_and_then_waits() -> None:
    """Promise: a caller may use its minute at once, then waits for its share, and takes nothing of another's."""
    clock = Clock()
    limit = RateLimit(per_minute=6, clock=clock)
    assert [limit.wait_s("ann") for _ in range(7)] == [0] * 6 + [10]
    assert limit.wait_s("bob") == 0
    clock.now += 4
    assert limit.wait_s("ann") == 6
    clock.now += 6
    assert [limit.wait_s("ann"), limit.wait_s("ann")] == [0, 10]


def test_replicas_together_respect_the_limit() -> None:
    """Promise: replicas together let no more through at once than the limit."""
    for num_replicas in range(1, 12):
        for per_minute in (num_replicas, num_replicas + 0.5, 1.9 * num_replicas, 60):
            shares = [RateLimit(per_minute, num_replicas, clock=Clock()) for _ in range(num_replicas)]
            assert 0 < sum(share.wait_s("ann") == 0 for share in shares for _ in range(70)) <= per_minute


def test_a_limit_follows_the_number_of_replicas() -> None:
    """Promise: what a replica admits follows the number of replicas, and a change adds no burst."""
    clock = Clock()
    limit = RateLimit(per_minute=12, num_replicas=3, clock=clock)
    assert [limit.wait_s("ann") for _ in range(5)] == [0] * 4 + [15]
    limit.share_among(1)
    assert limit.wait_s("ann") == 5
    clock.now += 60
    limit.share_among(2)
    assert [limit.wait_s("ann") for _ in range(7)] == [0] * 6 + [10]


@pytest.mark.parametrize(("per_s", "at_once"), [(0.5, 1), (1.0, 1), (3.0, 3)])
def test_no_more_at_once_than_a_second_brings_but_always_one(per_s: float, at_once: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_s, per_s, clock)
    assert [bucket.take() == 0 for _ in range(at_once + 1)] == [True] * at_once + [False]
    clock.now += 1000
    assert [bucket.take() == 0 for _ in range(at_once + 1)] == [True] * at_once + [False]
