"""A circuit breaker: what has failed repeatedly is left alone for a while, then tried by a single call."""

from __future__ import annotations

import time
from collections.abc import Callable
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

    Every admitted call ends in one of `succeeded`, `failed` and `abandoned`. `clock` gives seconds that never go back.
    """

    def __init__(self, config: BreakerConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._config, self._clock = config, clock
        self._failures = 0
        self._opened_at: float | None = None
        self._trying = False

    @property
    def state(self) -> State:
        """What a call would meet now."""
        if self._opened_at is None:
            return "closed"
        return "open" if self._clock() - self._opened_at < self._config.rest_s else "half_open"

    def admits(self) -> bool:
        """Whether a call may be made now; in the half-open state it is taken as made."""
        state = self.state
        if state == "half_open" and not self._trying:
            self._trying = True
            return True
        return state == "closed"

    def succeeded(self) -> None:
        """A call was answered. What comes late, from before the breaker opened, changes nothing."""
        if self.state == "open":
            return
        self._failures, self._opened_at, self._trying = 0, None, False

    def failed(self) -> None:
        """A call failed or ran out of time."""
        if self.state == "open":
            return
        self._failures += 1
        self._trying = False
        if self._opened_at is not None or self._failures >= self._config.failures:
            self._opened_at = self._clock()

    def abandoned(self) -> None:
        """A call ended without telling whether calls work: its client left, or a full queue refused it."""
        self._trying = False
