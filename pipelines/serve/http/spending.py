"""What a call that passes through may cost: booked at its maximum before it is sent, then replaced by its usage.

The budget and its database are those of the served large model, if both ask the same server.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from kcm.errors import ArtefactError, ConfigError
from kcm.large.response_cache import BudgetSpent, ResponseCache, ResponseStore
from pipelines.serve.proxy_config import ProxyConfig
from pipelines.serve.schemas import Refusal

MAX_LINE = 2**20  # bytes of a line of a stream that is read for its usage
_MILLION = 1_000_000
_OVERHEAD_TOKENS = 64  # what chat templates add to a question
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # of the tokens of a reply, by interface
_COPIES = ("n", "best_of")  # replies to one question
_READ, _WRITTEN = ("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens")


@dataclass(frozen=True)
class Usage:
    """Tokens that a call has read and written."""

    read: int
    written: int

    @classmethod
    def of(cls, reply: Any) -> Usage | None:
        """The usage in a reply, or in an event of a stream; None if there is none."""
        whole = reply.get("response", reply) if isinstance(reply, Mapping) else None
        usage = whole.get("usage") if isinstance(whole, Mapping) else None
        if not isinstance(usage, Mapping):
            return None
        read, written = _count(usage, *_READ), _count(usage, *_WRITTEN)
        return None if read is None else cls(read, written or 0)


class StreamedUsage:
    """Finds the last usage in the bytes of server-sent events, however they are cut into chunks."""

    def __init__(self) -> None:
        self.usage: Usage | None = None
        self._line = bytearray()

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        self._line += chunk
        if b"\n" not in chunk:
            del self._line[:-MAX_LINE]
            return
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:") and b'_tokens"' in line:
                self.usage = Usage.of(parsed(line.removeprefix(b"data:"))) or self.usage


class Spending:
    """Books calls to the account of `config.upstream` in `store`."""

    def __init__(self, config: ProxyConfig, store: ResponseStore) -> None:
        self._config, self._server = config, config.server
        account = self._server.account or config.upstream
        self._cache = ResponseCache(store, account, max_calls=config.max_calls, max_cost=config.max_cost)

    async def book(self, body: bytes) -> Booking:
        """Book a call at the most that it may cost.

        Raises Refusal: 402 if the budget is spent, 403 for a model without a price, 422 for a body without a model or
        with two, 503 without the database.
        """
        request = parsed(body)
        if _repeats_a_name(body):
            raise Refusal(422, "body: a name is repeated, so it is not clear what the call may cost")
        model = request.get("model") if isinstance(request, Mapping) else None
        if not isinstance(model, str):
            raise Refusal(422, "model: every call counts against a budget here, so it must name its model")
        try:
            prices = self._server.prices_of(model)
        except ConfigError:
            raise Refusal(403, f"model: no price is known here for {model[:100]!r}: see serve.proxy.prices") from None
        most = Usage(len(body) + _OVERHEAD_TOKENS, self._most_written(request))
        booking = Booking(self._cache, prices, cost(prices, most))
        try:
            await asyncio.to_thread(self._cache.reserve, booking.most)
        except BudgetSpent as error:
            raise Refusal(402, str(error)) from None
        except ArtefactError:
            raise Refusal(503, "the database of the budget is not available", retry_after_s=1) from None
        return booking

    def _most_written(self, request: Mapping[str, Any]) -> int:
        limits = [n for name in _LIMITS if (n := _count(request, name))]
        limit = max(limits, default=self._config.max_output_tokens)
        copies = max(_count(request, name) or 1 for name in _COPIES)
        prompts = request.get("prompt")
        return limit * copies * max(1, len(prompts) if isinstance(prompts, list) else 1)


@dataclass(frozen=True)
class Booking:
    """One call, booked at `most`, whose tokens have these prices. It stays booked unless it is settled or released."""

    cache: ResponseCache
    prices: tuple[float, float]
    most: float

    async def settle(self, usage: Usage | None) -> None:
        """Replace the booking by the cost of what was used; without a usage or the database it stays."""
        if usage is not None:
            with suppress(ArtefactError):
                await asyncio.to_thread(self.cache.settle, self.most, cost(self.prices, usage))

    async def release(self) -> None:
        """Remove the booking of a call that costs nothing; without the database it stays."""
        with suppress(ArtefactError):
            await asyncio.to_thread(self.cache.release, self.most)


def cost(prices: tuple[float, float], usage: Usage) -> float:
    """Currency for the tokens that are read and written, at prices per million."""
    return (usage.read * prices[0] + usage.written * prices[1]) / _MILLION


def parsed(body: bytes) -> Any:
    """The JSON of a body; None if it is none."""
    try:
        return from_json(body)
    except ValueError:
        return None


def _repeats_a_name(body: bytes) -> bool:
    """Whether an object in a body has a name twice: the upstream may read another one than the last."""

    def once(pairs: list[tuple[str, Any]]) -> None:
        if len({name for name, _ in pairs}) < len(pairs):
            raise KeyError

    try:
        json.loads(body, object_pairs_hook=once)
    except KeyError:
        return True
    except (ValueError, RecursionError):  # it is no JSON
        return False
    return False


def _count(values: Mapping[str, Any], *names: str) -> int | None:
    """The first of these that is a number of tokens or replies."""
    return next((n for name in names if isinstance(n := values.get(name), int) and 0 <= n <= 1_000_000_000), None)
