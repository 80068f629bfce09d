"""The way from the door to the large model: a deadline, and every failure turned into a reason and a status."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from kcm.cascade.runtime import Failure
from kcm.large import Item, LargeAnswer

PROBE = Item("probe", "Does the cascade answer?")  # a question that must be answered before any client's is


@dataclass(frozen=True)
class Trouble(Failure):
    """Why the large model gave no answers at all, and the HTTP status where the policy does not answer without it."""

    status: int


class Escalation:
    """Asks the large model's deployment."""

    def __init__(self, large: DeploymentHandle) -> None:
        self._large = large

    async def ask(self, items: Sequence[Item], timeout_s: float) -> list[LargeAnswer] | Trouble:
        """One answer per item, or Trouble: the large model is full, slow, or failing."""
        if not items:
            return []
        response = self._large.answer.remote(list(items))
        try:
            answers: list[LargeAnswer] = await asyncio.wait_for(response, timeout_s)
        except BackPressureError:
            return Trouble("the large model has no room for more requests", 503)
        except (RayError, RayServeException) as error:
            return Trouble(f"the large model failed: {_kind(error)}", 503)
        except TimeoutError:
            response.cancel()  # giving up waiting does not stop the remote call
            return Trouble(f"the large model took longer than {timeout_s:.1f} s", 504)
        except asyncio.CancelledError:  # the client has gone
            response.cancel()
            raise
        if len(answers) != len(items):
            return Trouble(f"the large model gave {len(answers)} answers to {len(items)} items", 503)
        return answers


def _kind(error: Exception) -> str:
    """The kind of an error, for clients: its text and traceback may tell what is none of theirs."""
    return type(error.cause if isinstance(error, RayTaskError) else error).__name__
