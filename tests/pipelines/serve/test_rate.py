from __future__ import annotations

import pytest

from pipelines.serve.breaker import RateLimit, TokenBucket


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_may_use_its_minute_at_once_and_then_waits_for_its_share() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=6, clock=clock)
    assert [limit.wait_s("ann") for _ in range(7)] == [0] * 6 + [10]
    clock.now += 4
    assert limit.wait_s("ann") == 6
    clock.now += 6
    assert [limit.wait_s("ann"), limit.wait_s("ann")] == [0, 10]


def test_callers_do_not_share() -> None:
    limit = RateLimit(per_minute=1, clock=Clock())
    assert [limit.wait_s("ann"), limit.wait_s("bob"), limit.wait_s("ann")] == [0, 0, 60]


def test_a_quiet_caller_saves_up_one_minute_and_no_more() -> None:
    clock = Clock()
    limit = RateLimit(per_minute=2, clock=clock)
    assert limit.wait_s("ann") == 0
    clock.now += 3600
    assert [limit.wait_s("ann") for _ in range(3)] == [0, 0, 30]


def test_replicas_together_let_no_more_through_at_once_than_the_limit() -> None:
    for num_replicas in range(1, 12):
        for per_minute in (num_replicas, num_replicas + 0.5, 1.9 * num_replicas, 60):
            shares = [RateLimit(per_minute / num_replicas, clock=Clock()) for _ in range(num_replicas)]
            assert 0 < sum(share.wait_s("ann") == 0 for share in shares for _ in range(70)) <= per_minute


@pytest.mark.parametrize(("per_s", "at_once"), [(0.5, 1), (1.0, 1), (3.0, 3)])
def test_no_more_at_once_than_a_second_brings_but_always_one(per_s: float, at_once: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_s, per_s, clock)
    assert [bucket.take() == 0 for _ in range(at_once + 1)] == [True] * at_once + [False]
    clock.now += 1000
    assert [bucket.take() == 0 for _ in range(at_once + 1)] == [True] * at_once + [False]


def test_tokens_come_at_their_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, 2.0, clock)
    taken = 0
    for _ in range(100):
        taken += bucket.take() == 0
        clock.now += 0.1
    assert taken == 21  # two at first, then two in each of ten seconds, the last of which has not ended
