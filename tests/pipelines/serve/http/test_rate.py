from __future__ import annotations

from pipelines.serve.http.rate import RateLimit


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
