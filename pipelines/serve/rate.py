"""Token buckets: how often something may happen, in total or for each caller."""

from __future__ import annotations

import math
import time
from collections.abc import Callable


class TokenBucket:
    """A bucket that fills with `per_s` tokens a second up to `size`, and is full at first.

    `clock` gives seconds that never go back.
    """

    def __init__(self, per_s: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._size, self._clock = per_s, max(1.0, size), clock
        self._tokens, self._filled_at = self._size, clock()

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until there is one."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0


class RateLimit:
    """Each caller may make `per_minute` requests in any minute on average, and as many at once after a quiet minute.

    Callers are few: their names come from the keys. `clock` gives seconds that never go back.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, TokenBucket] = {}

    def wait_s(self, caller: str) -> int:
        """0 where the caller may call, which takes a token; else the whole seconds until it may."""
        if caller not in self._buckets:
            self._buckets[caller] = TokenBucket(self._per_minute / 60, self._per_minute, self._clock)
        return math.ceil(self._buckets[caller].take())
