"""When calls are made: a circuit breaker, and token buckets for rates, in total or for each caller."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from kcm.config import Config

State = Literal["closed", "open", "half_open"]


class BreakerConfig(Config):
    """When what fails is no longer called, and for how long."""

    failures: int = Field(default=5, ge=1, description="Failed calls in a row after which none are made.")
    rest_s: float = Field(default=10.0, gt=0, description="Time until a single call tries again.")


class Breaker:
    """Closed: every call is admitted. Open: none is. Half open: one call is, and its outcome closes or opens again.

    Every admitted call reports its own outcome. Outcomes of calls from before the breaker last opened or closed change
    nothing. `clock` gives seconds that never go back.
    """

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False
        self._period = 0  # counts how often the breaker has opened or closed

    @property
    def state(self) -> State:
        """What a call would meet now."""
        if self._opened_at is None:
            return "closed"
        return "open" if self._clock() - self._opened_at < self._config.rest_s else "half_open"

    def admit(self) -> Call | None:
        """A call that may be made now; None where none may. In the half-open state it is the only one under way."""
        state = self.state
        if state == "open" or (state == "half_open" and self._trying):
            return None
        self._trying = state == "half_open"
        return Call(self, self._period)

    def _succeeded(self, period: int) -> None:
        if period != self._period:
            return
        self._failures = 0
        if self._opened_at is not None:
            self._start_period(None)

    def _failed(self, period: int) -> None:
        if period != self._period:
            return
        self._failures += 1
        if self._opened_at is not None or self._failures >= self._config.failures:
            self._start_period(self._clock())

    def _abandoned(self, period: int) -> None:
        if period == self._period:
            self._trying = False

    def _start_period(self, opened_at: float | None) -> None:
        """Open at a time, or close with None."""
        self._opened_at, self._trying = opened_at, False
        self._period += 1


@dataclass(frozen=True)
class Call:
    """An admitted call; it ends in exactly one of the three."""

    _breaker: Breaker
    _period: int

    def succeeded(self) -> None:
        """It was answered."""
        self._breaker._succeeded(self._period)

    def failed(self) -> None:
        """It failed or ran out of time."""
        self._breaker._failed(self._period)

    def abandoned(self) -> None:
        """It ended without showing whether calls work: its client left, or a full queue refused it."""
        self._breaker._abandoned(self._period)


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
