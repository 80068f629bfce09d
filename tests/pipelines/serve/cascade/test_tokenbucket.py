from __future__ import annotations

import pytest

from pipelines.serve.cascade.tokenbucket import TokenBucket


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(("per_s", "at_once"), [(0.5, 1), (1.0, 1), (3.0, 3)])
def test_no_more_at_once_than_a_second_brings_but_always_one(per_s: float, at_once: int) -> None:
    clock = Clock()
    bucket = TokenBucket(per_s, clock)
    assert [bucket.take() for _ in range(at_once + 1)] == [True] * at_once + [False]
    clock.now += 1000
    assert [bucket.take() for _ in range(at_once + 1)] == [True] * at_once + [False]


def test_tokens_come_at_their_rate() -> None:
    clock = Clock()
    bucket = TokenBucket(2.0, clock)
    taken = 0
    for _ in range(100):
        taken += bucket.take()
        clock.now += 0.1
    assert taken == 21  # two at first, then two in each of ten seconds, the last of which has not ended
