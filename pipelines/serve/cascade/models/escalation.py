"""Calls from the HTTP replica to the large model: deadline, retry, breaker, and a reason for every failure."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from kcm.bundle.answers import Failure
from kcm.large import PROBE, Item, LargeAnswer
from pipelines.serve.breaker import Breaker, TokenBucket
from pipelines.serve.cascade.models.queues import QueueFullError
from pipelines.serve.config import LargeReplicaConfig
from pipelines.serve.errors import BusyError, LargeFailedError, LargeTimeoutError, RequestError
from pipelines.serve.release import Release

RETRIES_PER_S = 1.0  # retries per second of an HTTP replica: more would double an overload

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class LargeUnavailable(Failure):
    """Why the large model gave no answers, and the error of a request that the policy cannot answer without it.

    `worth_a_retry` is False if another call would make the problem worse.
    """

    error: Callable[[str], RequestError] = LargeFailedError
    worth_a_retry: bool = True


class Escalation:
    """Asks the large model's deployment for the answers of one release with `num_labels` labels."""

    def __init__(
        self,
        large: DeploymentHandle[Any],
        release: Release,
        num_labels: int,
        config: LargeReplicaConfig,
        breaker: Breaker,
    ) -> None:
        self._large, self._release, self._num_labels = large, release, num_labels
        self._config, self._breaker = config, breaker
        self._retries = TokenBucket(RETRIES_PER_S, size=RETRIES_PER_S)

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer] | LargeUnavailable:
        """One answer per item, or LargeUnavailable: the breaker is open, or the large model is full, slow or failing.

        A failed call is retried once if time is left and `RETRIES_PER_S` allows it: if all calls time out, retries
        would be useless. A malformed answer becomes an answer with an error.
        """
        call = self._breaker.admit()
        if call is None:
            return LargeUnavailable("the large model has failed repeatedly; calls to it are paused")
        clock = asyncio.get_running_loop().time
        deadline = clock() + timeout_s
        try:
            outcome = await self._attempt(items, deadline - clock())
            if (
                isinstance(outcome, LargeUnavailable)
                and outcome.worth_a_retry
                and clock() < deadline
                and self._retries.take() == 0
            ):
                logger.warning("%s; retrying", outcome.reason)
                outcome = await self._attempt(items, deadline - clock())
        except BaseException:
            self._breaker.record(call, None)
            raise
        self._breaker.record(call, _success(outcome))
        return outcome

    async def probe(self, timeout_s: float) -> LargeUnavailable | None:
        """Ask one question, whatever the breaker's state; LargeUnavailable if no answer arrives in time."""
        outcome = await self._attempt([PROBE], timeout_s, attempt_s=timeout_s)
        return outcome if isinstance(outcome, LargeUnavailable) else None

    async def _attempt(
        self, items: Sequence[Item], left_s: float, attempt_s: float | None = None
    ) -> list[LargeAnswer] | LargeUnavailable:
        timeout_s = min(left_s, attempt_s or self._config.attempt_timeout_s)
        response: Any = self._large.answer.remote(list(items), self._release)
        try:
            answers: list[LargeAnswer] = await asyncio.wait_for(response, timeout_s)
        except BackPressureError:
            return _FULL
        except (RayError, RayServeException) as error:
            if isinstance(_cause(error), QueueFullError):
                return _FULL
            return LargeUnavailable(f"the large model failed: {type(_cause(error)).__name__}")
        except TimeoutError:
            response.cancel()  # giving up waiting does not stop the remote call
            return LargeUnavailable(f"the large model took longer than {timeout_s:.1f} s", LargeTimeoutError)
        except asyncio.CancelledError:  # the client has gone
            response.cancel()
            raise
        return [self._sensible(answer) for answer in answers]

    def _sensible(self, answer: LargeAnswer) -> LargeAnswer:
        """The answer, or an error that says what is wrong with it."""
        if answer.label is None or not (fault := answer.fault(self._num_labels)):
            return answer
        return LargeAnswer(None, cost=answer.cost, error=f"the large model returned {fault}")


def _success(outcome: list[LargeAnswer] | LargeUnavailable) -> bool | None:
    """Whether a call has shown that the large model works; None if it has shown nothing.

    A malformed answer is no failure of the service, or one caller could open the breaker for all. Errors of the items
    themselves, such as an empty text, show nothing about the service.
    """
    if isinstance(outcome, LargeUnavailable):
        return False if outcome.worth_a_retry else None
    if any(answer.label is not None or answer.off_label for answer in outcome):
        return True
    return False if any(answer.outage for answer in outcome) else None


_FULL = LargeUnavailable("the large model has no room for more requests", BusyError, worth_a_retry=False)


def _cause(error: Exception) -> BaseException:
    """The original error. Clients see only its type: its text and traceback may contain other callers' data."""
    return error.cause if isinstance(error, RayTaskError) else error
