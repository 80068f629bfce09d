"""One chat completion by the `openai` client, with a deadline, a size limit, retries and dropped unknown parameters.

The client makes single attempts, because the budget is booked for each attempt. This module adds what the client lacks:
a deadline for the whole reply (the client's time-outs restart with every byte), and a limit of bytes.
"""

from __future__ import annotations

import asyncio
import functools
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from openai import (
    APIConnectionError,
    APIStatusError,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    Omit,
    OpenAI,
    PermissionDeniedError,
    UnprocessableEntityError,
)
from opentelemetry.trace import SpanKind
from pydantic_core import from_json  # limits the nesting depth of a text
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from kcm.errors import ConfigError
from kcm.tracing import span, trace_headers

MAX_BYTES = 2**20  # largest reply; a label takes a few hundred
MANY_FAILURES = 3  # consecutive attempts without a reply after which a server counts as gone
_NO_CONNECTION = (httpx.ConnectError, httpx.ConnectTimeout)

# Parameters that a server may not know, and the words in which it says so.
_DISPENSABLE = {
    "response_format": ("response_format", "json_schema", "structured output"),
    "logprobs": ("logprobs",),
    "temperature": ("temperature",),
    "max_tokens": ("max_tokens",),
}
_SUCCESSORS = {"max_tokens": "max_completion_tokens"}
_STARTING = threading.Lock()  # held while the event loop of all servers is started


class UpstreamError(Exception):
    """Why a question has no usable reply.

    `may_be_charged`: the request was sent and not refused. `outage`: the server is unreachable, failing or too slow,
    which is not the question's fault. `retry_after_s`: the pause before a retry; None if a retry does not help.
    """

    def __init__(
        self, reason: str, *, may_be_charged: bool = False, outage: bool = False, retry_after_s: float | None = None
    ) -> None:
        super().__init__(reason)
        self.may_be_charged, self.outage, self.retry_after_s = may_be_charged, outage, retry_after_s


@dataclass(frozen=True)
class Reply:
    """The content, its tokens with log-probabilities if the server gives them, and token counts.

    `num_read` and `num_written` are None if the server does not count. `seconds` is the time of the attempt.
    """

    content: str
    logprobs: tuple[tuple[str, float], ...]
    num_read: int | None
    num_written: int | None
    seconds: float


class Upstream:
    """A server of chat completions; threads may share an instance.

    A reply may take `timeout_s`; all attempts at a question and the pauses between them may take `limit_s`.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        timeout_s: float,
        max_retries: int,
        max_wait_s: float,
        limit_s: float,
        warn: Callable[[str], None],
    ) -> None:
        self._warn, self._lock, self._num_failed = warn, threading.Lock(), 0  # attempts in a row without a reply
        self._url, self._key, self._timeout_s = base_url, key, timeout_s
        self._max_retries, self._max_wait_s, self._limit_s = max_retries, max_wait_s, limit_s
        self._backoff = wait_random_exponential(multiplier=0.5, max=max_wait_s)
        self._unknown_fields: frozenset[str] = frozenset()
        self.closing = threading.Event()
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        http_client: Any = httpx.AsyncClient(event_hooks={"response": [_limit_body]}, limits=limits)
        client = AsyncOpenAI(api_key=key or "none", base_url=base_url, max_retries=0, http_client=http_client)
        self._headers: dict[str, Any] = {"Accept-Encoding": "identity"}
        if key is None:
            self._headers["Authorization"] = Omit()
        self._create: Any = client.chat.completions.with_raw_response.create  # typed for literal arguments
        weakref.finalize(self, lambda: asyncio.run_coroutine_threadsafe(client.close(), _event_loop()))

    def ask(self, body: Mapping[str, Any], paying: Callable[[Callable[[], Reply]], Reply]) -> Reply:
        """The reply to `body`. Every attempt runs inside `paying`, which may stop it with an exception of its own.

        Raises UpstreamError after the last attempt, ConfigError when the server does not accept the key or the model.
        """
        deadline = time.monotonic() + self._limit_s
        retrying = Retrying(
            retry=retry_if_exception(lambda error: getattr(error, "retry_after_s", None) is not None),
            stop=stop_after_attempt(self._max_retries + 1)
            | stop_before_delay(self._limit_s)
            | stop_when_event_set(self.closing),
            wait=self._pause,
            sleep=sleep_using_event(self.closing),
            reraise=True,
        )

        def attempt() -> Reply:
            try:
                return asyncio.run_coroutine_threadsafe(self._attempt(body, deadline), _event_loop()).result()
            except UpstreamError as error:
                if error.outage:
                    with self._lock:
                        self._num_failed += 1
                        if self._num_failed == MANY_FAILURES:
                            self._warn(f"the large model at {self._url} has not answered: {error}; trying again")
                raise

        return retrying(paying, attempt)

    def blocking_client(self) -> tuple[OpenAI, dict[str, Any]]:
        """A client for other interfaces of the server, and the headers of its calls."""
        return OpenAI(api_key=self._key or "none", base_url=self._url, max_retries=self._max_retries), self._headers

    def accepted(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """`body` without the parameters that the server is known to reject."""
        return _without_fields(body, self._unknown_fields)

    def close(self) -> None:
        """Make no further attempts; an attempt under way finishes."""
        self.closing.set()

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), getattr(error, "retry_after_s", 0.0))

    async def _attempt(self, body: Mapping[str, Any], deadline: float) -> Reply:
        """One reply; repeats the request without each parameter that turns out to be unknown."""
        while True:
            unknown_fields, started = self._unknown_fields, time.perf_counter()
            timeout_s = min(self._timeout_s, deadline - time.monotonic())
            if timeout_s <= 0:  # nothing is sent, so nothing is charged
                raise UpstreamError("no time is left for a reply", outage=True)
            connecting = httpx.Timeout(
                None, connect=timeout_s / 2
            )  # ends first: without a connection nothing is charged
            try:
                names = {"gen_ai.operation.name": "chat", "gen_ai.request.model": body["model"]}
                with span(f"chat {body['model']}", SpanKind.CLIENT, **names):
                    async with asyncio.timeout(timeout_s):
                        # Everything is in `extra_body`: the client refuses parameters that OpenAI does not know.
                        response = await self._create(
                            model=body["model"],
                            messages=body["messages"],
                            extra_body=_without_fields(body, unknown_fields),
                            extra_headers=self._headers | trace_headers(),
                            timeout=connecting,
                        )
                reply = parsed(response.content, time.perf_counter() - started)
                with self._lock:
                    if self._num_failed >= MANY_FAILURES:
                        self._warn(f"the large model at {self._url} answers again")
                    self._num_failed = 0
                return reply
            except TimeoutError:
                reason = f"no whole reply within {timeout_s:.3g} s"
                raise UpstreamError(reason, may_be_charged=True, outage=True, retry_after_s=0.0) from None
            except APIConnectionError as error:
                was_sent = not isinstance(error.__cause__, _NO_CONNECTION)
                reason = "the connection broke" if was_sent else "the server cannot be reached"
                reason = f"{reason}: {type(error.__cause__).__name__}"
                raise UpstreamError(reason, may_be_charged=was_sent, outage=True, retry_after_s=0.0) from None
            except APIStatusError as error:
                rejected = (
                    _rejected(error, body) if isinstance(error, BadRequestError | UnprocessableEntityError) else set()
                )
                if not rejected - unknown_fields:
                    raise self._error_of(error) from None
                self._unknown_fields = self._unknown_fields | rejected

    def _error_of(self, error: APIStatusError) -> Exception:
        """The error for a status other than 200: the server's message on one line, without the key."""
        message = " ".join(_message(error).split()).replace(self._key or "\0", "***")[:300]
        reason = f"status {error.status_code}: {message}".removesuffix(": ")
        if isinstance(error, AuthenticationError | PermissionDeniedError | NotFoundError):
            return ConfigError(
                f"the server refuses: {reason}", where=self._url, hint="Check large.model, base_url and the key"
            )
        if error.status_code not in (408, 425, 429) and error.status_code < 500:
            return UpstreamError(reason)
        retry_after_s = _retry_after(error.response.headers.get("retry-after", ""))
        if retry_after_s > self._max_wait_s:
            reason = f"{reason}; it asks to wait {retry_after_s:.0f} s, longer than max_wait_s"
            return UpstreamError(reason, outage=True)
        return UpstreamError(reason, outage=True, retry_after_s=retry_after_s)


def _event_loop() -> asyncio.AbstractEventLoop:
    """The loop for all servers: only a coroutine can be stopped while it waits. Its thread ends with the process."""
    with _STARTING:  # otherwise threads that start together would start a loop each
        return _started_loop()


@functools.cache
def _started_loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="upstream", daemon=True).start()
    return loop


class _LimitedStream(httpx.AsyncByteStream):
    """The bytes of a response, up to a limit."""

    def __init__(self, stream: httpx.AsyncByteStream) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        num_bytes = 0
        async for chunk in self._stream:
            num_bytes += len(chunk)
            if num_bytes > MAX_BYTES:
                raise UpstreamError(f"the reply is longer than {MAX_BYTES} bytes", may_be_charged=True)
            yield chunk

    async def aclose(self) -> None:
        await self._stream.aclose()


async def _limit_body(response: httpx.Response) -> None:
    """Limit the size of a response. Requests ask for no compression: a compressed reply could exhaust the memory."""
    encoding = response.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        reason = f"the reply is compressed ({encoding[:20]!r}), which was not asked for"
        raise UpstreamError(reason, may_be_charged=True)
    if isinstance(response.stream, httpx.AsyncByteStream):
        response.stream = _LimitedStream(response.stream)


def _without_fields(body: Mapping[str, Any], unknown_fields: frozenset[str]) -> dict[str, Any]:
    known_fields = {name: value for name, value in body.items() if name not in unknown_fields}
    return known_fields | {new: body[old] for old, new in _SUCCESSORS.items() if old in unknown_fields and old in body}


def _rejected(error: APIStatusError, body: Mapping[str, Any]) -> set[str]:
    """The dispensable parameters of `body` that a refusal mentions."""
    message = _message(error).lower()
    return {name for name, words in _DISPENSABLE.items() if name in body and any(word in message for word in words)}


def _message(error: APIStatusError) -> str:
    """The text of a refusal: OpenAI's `error`, FastAPI's `detail`, or all of it."""
    try:
        match error.body:
            case str(message) | {"message": message} | {"detail": str(message)}:
                return str(message)
            case {"detail": [*faults]}:  # each repeats its subject, which may be the text of an item
                return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
    except (KeyError, TypeError):
        pass
    return error.response.text


def _retry_after(value: str) -> float:
    """Seconds in a Retry-After header; 0 without a number of them."""
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0


def parsed(text: bytes, seconds: float) -> Reply:
    """The reply, parsed leniently: compatible servers omit fields."""
    try:
        body = from_json(text)
        choice = body["choices"][0]
        content, usage = choice["message"]["content"], body.get("usage") or {}
        tokens = (choice.get("logprobs") or {}).get("content") or []
        return Reply(
            content=content if isinstance(content, str) else "",
            logprobs=tuple((str(token["token"]), float(token["logprob"])) for token in tokens),
            num_read=_count(usage.get("prompt_tokens")),
            num_written=_count(usage.get("completion_tokens")),
            seconds=seconds,
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
        reason = "the reply is not a chat completion"
        raise UpstreamError(reason, may_be_charged=True, outage=True, retry_after_s=0.0) from None


def _count(value: Any) -> int | None:
    """A number of tokens; None for anything else, and for implausible numbers."""
    return value if isinstance(value, int) and 0 <= value <= 1_000_000_000 else None
