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
