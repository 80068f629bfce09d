"""Limits on calls: a circuit breaker, and token buckets for rates, in total or per caller."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from pydantic import Field

from kcm.config import Config

State = Literal["closed", "open", "half_open"]


class BreakerConfig(Config):
    """When calls to a failing service stop, and for how long."""

    failures: int = Field(default=5, ge=1, description="Failed calls in a row after which calls stop.")
    rest_s: float = Field(default=10.0, gt=0, description="Time until a single trial call.")


class Breaker:
    """Closed: every call is admitted. Open: none is. Half open: one call, whose outcome closes or reopens the breaker.

    Every admitted call reports its own outcome. Outcomes of calls from before the breaker last opened or closed change
    nothing. `clock` returns monotonic seconds.
    """

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False
        self._period = 1  # numbers its calls: one more whenever the breaker opens or closes

    @property
    def state(self) -> State:
        """The state that a call would meet now."""
        if self._opened_at is None:
            return "closed"
        return "open" if self._clock() - self._opened_at < self._config.rest_s else "half_open"

    def admit(self) -> int | None:
        """The number of a call that may be made now, or None. In the half-open state it is the only open call."""
        state = self.state
        if state == "open" or (state == "half_open" and self._trying):
            return None
        self._trying = state == "half_open"
        return self._period

    def record(self, call: int, succeeded: bool | None) -> None:
        """Record the outcome of an admitted call, once; None if it says nothing about the service.

        Its client left, for example, or a full queue refused it.
        """
        if call != self._period:
            return
        if succeeded is None:
            self._trying = False
        elif succeeded:
            self._failures = 0
            if self._opened_at is not None:
                self._start_period(None)
        else:
            self._failures += 1
            if self._opened_at is not None or self._failures >= self._config.failures:
                self._start_period(self._clock())

    def _start_period(self, opened_at: float | None) -> None:
        """Open at this time, or close if it is None."""
        self._opened_at, self._trying = opened_at, False
        self._period += 1


class TokenBucket:
    """A bucket that fills with `per_s` tokens per second up to `size`, and starts full.

    `clock` returns monotonic seconds.
    """

    def __init__(self, per_s: float, size: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_s, self._size, self._clock = per_s, max(1.0, size), clock
        self._tokens, self._filled_at = self._size, clock()

    def resize(self, per_s: float, size: float) -> None:
        """Fill with `per_s` tokens per second up to `size` from now on; no token is added at once."""
        self._per_s, self._size = per_s, max(1.0, size)

    def take(self) -> float:
        """Take a token and return 0, or return the seconds until the next token."""
        now = self._clock()
        self._tokens = min(self._size, self._tokens + (now - self._filled_at) * self._per_s)
        self._filled_at = now
        if self._tokens < 1:
            return (1 - self._tokens) / self._per_s
        self._tokens -= 1
        return 0.0


class RateLimit:
    """Each caller may make `per_minute` requests per minute on average, and as many in one burst after a quiet minute.

    Each of `num_replicas` admits its share, at least one request. Callers are few: their names come from the keys.
    `clock` returns monotonic seconds.
    """

    def __init__(self, per_minute: float, num_replicas: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._buckets: dict[str, TokenBucket] = {}
        self.share_among(num_replicas)

    def share_among(self, num_replicas: int) -> None:
        """Admit an equal share of the limit from now on."""
        self._share = self._per_minute / num_replicas
        for bucket in self._buckets.values():
            bucket.resize(self._share / 60, self._share)

    def wait_s(self, caller: str) -> int:
        """Take a token and return 0, or return the whole seconds until the caller may call."""
        if caller not in self._buckets:
            self._buckets[caller] = TokenBucket(self._share / 60, self._share, self._clock)
        return math.ceil(self._buckets[caller].take())
