"""What a call that passes through may cost: booked at its maximum before it is sent, then replaced by its usage.

Budget and database are shared with the served large model, if both ask the same server.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from kcm.errors import ArtefactError, ConfigError
from kcm.large.response_cache import BudgetSpent, ResponseCache, ResponseStore
from pipelines.serve.config import ProxyConfig
from pipelines.serve.http.refusals import Refusal

SETTLE_S = 0.1  # a call that has ended is still booked at its maximum this long, unless another one is booked
MAX_OUTPUT_TOKENS = 16_384  # booked for a call without a limit of its own: as many as current models write at most
MAX_IMAGE_TOKENS = 50_000  # booked for each picture: gpt-4o-mini reads 48,169 at most, the most of current models
MAX_LINE = 2**20  # bytes of a line of a stream that is read for its usage
_MILLION = 1_000_000
_OVERHEAD_TOKENS = 64  # what chat templates add to a question
_LIMITS = ("max_completion_tokens", "max_tokens", "max_output_tokens")  # of the tokens of a reply, by interface
_COPIES = ("n", "best_of")  # replies to one question
_IMAGES = frozenset({"image_url", "input_image", "computer_screenshot"})  # types of parts that are pictures
_UNBOUNDED = frozenset({"file", "input_file", "item_reference"})  # types of parts whose tokens their bytes do not bound
_STORED = ("previous_response_id", "conversation")  # names what the upstream adds to the question
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


class StreamedReply:
    """Finds the last usage in the bytes of server-sent events, however they are cut into chunks.

    With `reads_content` also the text of the first choice, of at most `MAX_LINE` characters.
    """

    def __init__(self, reads_content: bool = False) -> None:
        self.usage: Usage | None = None
        self._reads_content = reads_content
        self._line, self._texts, self._num_chars = bytearray(), list[str](), 0

    @property
    def content(self) -> str | None:
        """The text so far; None if none came, or too much."""
        return "".join(self._texts) if self._texts and self._num_chars <= MAX_LINE else None

    def feed(self, chunk: bytes) -> None:
        """Read the next bytes."""
        self._line += chunk
        if b"\n" not in chunk:
            del self._line[:-MAX_LINE]
            return
        *lines, rest = bytes(self._line).split(b"\n")
        self._line = bytearray(rest)
        for line in lines:
            if line.startswith(b"data:") and (self._reads_content or b'_tokens"' in line):
                self._read(parsed(line.removeprefix(b"data:")))

    def _read(self, event: Any) -> None:
        self.usage = Usage.of(event) or self.usage
        text = content_of(event, "delta") if self._reads_content else None
        if text:
            self._num_chars += len(text)
            if self._num_chars <= MAX_LINE:
                self._texts.append(text)


class Spending:
    """Books calls to the account of `config.upstream` in `store`, and keeps replies there; None: in memory."""

    def __init__(self, config: ProxyConfig, store: ResponseStore | None) -> None:
        self._config, self._server = config, config.server
        account = config.upstream
        self._cache = ResponseCache(store, account, max_calls=config.max_calls, max_cost=config.max_cost)
        self._owed = 0.0  # what settled calls have cost, less what they are still booked at
        self._settling: asyncio.Task[None] | None = None

    async def paid(self, body: bytes) -> bytes | None:
        """The reply that was kept of this request; None if there is none, or no database."""
        with suppress(ArtefactError):
            record = await asyncio.to_thread(self._cache.find, self._key(body))
            return None if record is None else str(record["reply"]).encode()
        return None

    async def keep(self, body: bytes, reply: bytes, booking: Booking | None, usage: Usage | None) -> None:
        """Keep the reply to a request, and replace its booking by its cost; without the database neither happens."""
        most = booking.most if booking else 0.0
        currency = cost(booking.prices, usage) if booking and usage else most
        with suppress(ArtefactError, UnicodeDecodeError):
            record = {"reply": reply.decode()}
            await asyncio.to_thread(self._cache.keep, self._key(body), record, most, currency)

    def _key(self, body: bytes) -> str:
        return hashlib.sha256(f"relayed {self._config.upstream}\0".encode() + body).hexdigest()

    async def book(self, body: bytes) -> Booking | None:
        """Book a call at the most that it may cost; None without a budget.

        Raises Refusal: 402 if the budget is spent, 403 for a model without a price and for a body that may cost any
        amount, 422 for a body without a model or with two, 503 without the database.
        """
        if not self._server.has_budget:
            return None
        request = parsed(body)
        if _repeats_a_name(body):
            raise Refusal(422, "body: a name is repeated, so it is not clear what the call may cost")
        model = request.get("model") if isinstance(request, Mapping) else None
        if not isinstance(model, str):
            raise Refusal(422, "model: every call counts against a budget here, so it must name its model")
        for name in (*_LIMITS, *_COPIES):
            if request.get(name) is not None and _count(request, name) is None:
                raise Refusal(422, f"{name}: must be a whole number, since it decides what the call may cost")
        try:
            prices = self._server.prices_of(model)
        except ConfigError:
            raise Refusal(403, f"model: no price is known here for {model[:100]!r}: see serve.proxy.prices") from None
        if self._config.max_cost is not None and (unbounded := _unbounded(request)):
            raise Refusal(
                403, f"{unbounded}: what the upstream reads for it cannot be known, and max_cost limits the cost"
            )
        num_read = len(body) + MAX_IMAGE_TOKENS * sum(map(_is_image, _objects(request))) + _OVERHEAD_TOKENS
        most = cost(prices, Usage(num_read, self._most_written(request)))
        owed, self._owed = self._owed, 0.0
        try:  # one transaction for this call and the settled ones
            await asyncio.to_thread(self._cache.reserve, most + owed)
        except (BudgetSpent, ArtefactError) as error:
            self._owe(owed)
            if isinstance(error, BudgetSpent):
                raise Refusal(402, str(error)) from None
            raise Refusal(503, "the database of the budget is not available", retry_after_s=1) from None
        return Booking(prices, most)

    def settle(self, booking: Booking, usage: Usage | None) -> None:
        """Replace a booking by the cost of what was used, within `SETTLE_S`; without a usage it stays.

        The caller's reply does not wait for it.
        """
        if usage is not None:
            self._owe(cost(booking.prices, usage) - booking.most)

    async def release(self, booking: Booking) -> None:
        """Remove the booking of a call that costs nothing; without the database it stays."""
        with suppress(ArtefactError):
            await asyncio.to_thread(self._cache.release, booking.most)

    def _owe(self, currency: float) -> None:
        self._owed += currency
        if self._owed and (self._settling is None or self._settling.done()):
            self._settling = asyncio.create_task(self._settle_soon())

    async def _settle_soon(self) -> None:
        """Write down what the next booking has not; without the database, calls stay booked at their maximum."""
        await asyncio.sleep(SETTLE_S)
        owed, self._owed = self._owed, 0.0
        if owed:
            with suppress(ArtefactError):
                await asyncio.to_thread(self._cache.settle, 0.0, owed)

    def _most_written(self, request: Mapping[str, Any]) -> int:
        limits = [n for name in _LIMITS if (n := _count(request, name))]
        limit = max(limits, default=MAX_OUTPUT_TOKENS)
        copies = max(_count(request, name) or 1 for name in _COPIES)
        prompts = request.get("prompt")
        return limit * copies * max(1, len(prompts) if isinstance(prompts, list) else 1)


@dataclass(frozen=True)
class Booking:
    """One call, booked at `most`, whose tokens have these prices. It stays booked unless it is settled or released."""

    prices: tuple[float, float]
    most: float


def cost(prices: tuple[float, float], usage: Usage) -> float:
    """Currency for the tokens that are read and written, at prices per million."""
    return (usage.read * prices[0] + usage.written * prices[1]) / _MILLION


def parsed(body: bytes) -> Any:
    """The JSON of a body; None if it is none."""
    try:
        return from_json(body)
    except ValueError:
        return None


def content_of(reply: Any, part: str = "message") -> str | None:
    """The text of the first choice of a completion, or of an event (`delta`); None if there is none."""
    try:
        content = reply["choices"][0][part]["content"]
    except (TypeError, KeyError, IndexError):
        return None
    return content if isinstance(content, str) else None


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    """All objects in a JSON value."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case dict() as found:
                yield found
                waiting += found.values()
            case list() as values:
                waiting += values


def _is_image(part: Mapping[str, Any]) -> bool:
    kind = part.get("type")  # of a schema it may be a list
    return "image_url" in part or (isinstance(kind, str) and kind in _IMAGES)


def _unbounded(request: Mapping[str, Any]) -> str | None:
    """What in a request may cost any amount, whatever its bytes; None if nothing."""
    names = [name for name in _STORED if request.get(name) is not None]
    names += ["prompt"] if isinstance(request.get("prompt"), dict) else []
    types = [part.get("type") for part in _objects(request)]
    return next(iter([*names, *(kind for kind in types if isinstance(kind, str) and kind in _UNBOUNDED)]), None)


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
