"""A limit on how often each caller may call: a bucket of tokens per caller."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass
class _Bucket:
    tokens: float
    filled_at: float


class RateLimit:
    """Each caller may make `per_minute` requests in any minute on average, and as many at once when it has been quiet.

    Callers are few: their names come from the keys. `clock` gives seconds that never go back.
    """

    def __init__(self, per_minute: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._size, self._per_s, self._clock = max(1.0, per_minute), per_minute / 60, clock
        self._buckets: dict[str, _Bucket] = {}

    def wait_s(self, caller: str) -> int:
        """0 where the caller may call, which takes a token; else the whole seconds until it may."""
        now = self._clock()
        bucket = self._buckets.setdefault(caller, _Bucket(self._size, now))
        bucket.tokens = min(self._size, bucket.tokens + (now - bucket.filled_at) * self._per_s)
        bucket.filled_at = now
        if bucket.tokens < 1:
            return math.ceil((1 - bucket.tokens) / self._per_s)
        bucket.tokens -= 1
        return 0
