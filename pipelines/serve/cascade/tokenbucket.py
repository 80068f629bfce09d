"""A budget per second: a bucket that fills with tokens at a steady rate, and from which whoever acts takes one."""

from __future__ import annotations

import time
from collections.abc import Callable


class TokenBucket:
    """Full at first, with what a second brings and at least one token. `clock` gives seconds that never go back."""

    def __init__(self, per_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._size, self._clock = per_s, max(1.0, per_s), clock
        self._tokens, self._filled_at = self._size, clock()

    def take(self) -> bool:
        """Take a token; False where there is none."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True
