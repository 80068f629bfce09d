"""One chat completion over HTTP: deadline, size limit, retries with backoff, and parameters a server does not know.

A reply is read as a stream, so that a stall or an endless answer ends at a limit. It is requested uncompressed, so that
bytes on the wire are bytes in memory.
"""

from __future__ import annotations

import asyncio
import email.utils
import math
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import httpx
from pydantic_core import from_json  # bounds how deep a text nests, where json would exhaust the stack
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from kcm.errors import ConfigError

MAX_BYTES = 2**20  # of a reply; a label takes a few hundred
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504, 529})

# What a server may not know, by the words with which it says so, and what takes its place.
_DISPENSABLE = {
    "response_format": ("response_format", "json_schema", "structured output"),
    "logprobs": ("logprobs",),
    "temperature": ("temperature",),
    "max_tokens": ("max_tokens",),
}
_SUCCESSORS = {"max_tokens": "max_completion_tokens"}


class RequestRefused(Exception):
    """The server refused the request and charged nothing; a retry does not help.

    `outage` separates a failing server from a request that the server does not accept.
    """

    outage = False


class ReplyLost(Exception):
    """The request was sent and no usable reply came: it may have been charged. A retry does not help.

    `outage` as in RequestRefused.
    """

    outage = False


class _Unavailable(RequestRefused):
    """The server is failing, for longer than the deadline."""

    outage = True


class _Busy(_Unavailable):
    """The server asks to retry after `retry_after_s`."""

    def __init__(self, reason: str, retry_after_s: float = 0.0) -> None:
        super().__init__(reason)
        self.retry_after_s = retry_after_s


class _Broken(ReplyLost):
    """The reply broke off, or never came."""

    outage = True


@dataclass(frozen=True)
class Reply:
    """The content, its tokens with log-probabilities where the server gives them, and token counts.

    `num_read` and `num_written` are None where the server does not count; `seconds` are those of the attempt.
    """

    content: str
    logprobs: tuple[tuple[str, float], ...] = ()
    num_read: int | None = None
    num_written: int | None = None
    seconds: float = 0.0


class Upstream:
    """A server of chat completions; threads may share an instance.

    A reply may take `timeout_s`, all attempts at a question and the pauses between them `limit_s`.
    """

    def __init__(
        self,
        base_url: str,
        key: str | None,
        *,
        timeout_s: float,
        max_retries: int,
        max_wait_s: float,
        limit_s: float = math.inf,
    ) -> None:
        self._url, self._key, self._timeout_s = f"{base_url.rstrip('/')}/chat/completions", key, timeout_s
        self._max_retries, self._max_wait_s, self._limit_s = max_retries, max_wait_s, limit_s
        self._backoff = wait_random_exponential(multiplier=0.5, max=max_wait_s)
        self._unknown: frozenset[str] = frozenset()
        self._closing = threading.Event()
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {key}"} if key else {})
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        self._client = httpx.AsyncClient(headers=headers, timeout=None, limits=limits)
        # Only a coroutine can be stopped wherever it waits; the time-outs of a socket begin anew with every byte.
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=_run, args=(self._loop,), name="upstream", daemon=True).start()
        weakref.finalize(self, _end, self._loop, self._client)

    def ask(self, body: Mapping[str, Any], paying: Callable[[Callable[[], Reply]], Reply]) -> Reply:
        """The reply to `body`; every attempt is made by `paying`, which may stop it by an exception of its own.

        Raises RequestRefused or ReplyLost after the last attempt, ConfigError when the server does not accept the key
        or the model.
        """
        deadline = time.monotonic() + self._limit_s
        retrying = Retrying(
            retry=retry_if_exception_type((_Busy, _Broken)),
            stop=stop_after_attempt(self._max_retries + 1)
            | stop_before_delay(self._limit_s)
            | stop_when_event_set(self._closing),
            wait=self._pause,
            sleep=sleep_using_event(self._closing),
            reraise=True,
        )
        return retrying(lambda: paying(lambda: self._attempt(body, deadline)))

    def close(self) -> None:
        """Make no further attempts; one under way ends by itself."""
        self._closing.set()

    def _pause(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        return max(self._backoff(state), getattr(error, "retry_after_s", 0.0))

    def _attempt(self, body: Mapping[str, Any], deadline: float) -> Reply:
        """One reply, asked for once more for each parameter that turns out to be unknown."""
        while True:
            unknown = self._unknown
            started = time.perf_counter()
            timeout_s = min(self._timeout_s, deadline - time.monotonic())
            fetching = self._fetch(_without(body, unknown), timeout_s)
            status, headers, text = asyncio.run_coroutine_threadsafe(fetching, self._loop).result()
            if status == 200:
                return replace(_parsed(text), seconds=time.perf_counter() - started)
            reason = self._reason(status, text)
            if status in (400, 422) and (named := _named(text, body) - unknown):
                self._unknown = self._unknown | named
                continue
            if status in (401, 403, 404):
                raise ConfigError(
                    f"the server refuses: {reason}", where=self._url, hint="Check large.model, base_url and the key"
                )
            if status not in _BUSY:
                raise RequestRefused(reason)
            retry_after_s = _retry_after(headers.get("retry-after", ""))
            if retry_after_s > self._max_wait_s:
                raise _Unavailable(f"{reason}; it asks to wait {retry_after_s:.0f} s, longer than max_wait_s")
            raise _Busy(reason, retry_after_s)

    async def _fetch(self, body: Mapping[str, Any], timeout_s: float) -> tuple[int, httpx.Headers, str]:
        """Status, headers and text of the response to one request, within `timeout_s`."""
        sent, received = False, bytearray()

        async def trace(event: str, _: Mapping[str, Any]) -> None:
            nonlocal sent
            sent = sent or event.endswith("send_request_headers.started")

        request = self._client.stream("POST", self._url, json=body, extensions={"trace": trace})
        try:
            async with asyncio.timeout(timeout_s), request as response:
                encoding = response.headers.get("content-encoding", "identity")
                if encoding.lower() != "identity":
                    raise ReplyLost(f"the reply is compressed ({encoding[:20]!r}), which was not asked for")
                async for chunk in response.aiter_raw():
                    received += chunk
                    if len(received) > MAX_BYTES:
                        raise ReplyLost(f"the reply is longer than {MAX_BYTES} bytes")
                return response.status_code, response.headers, received.decode("utf-8", "replace")
        except TimeoutError:
            reason = f"no whole reply within {timeout_s:.3g} s"
            raise (_Broken(reason) if sent else _Busy(reason)) from None
        except httpx.ConnectError as error:
            raise _Busy(f"the server cannot be reached: {type(error).__name__}") from None
        except httpx.RequestError as error:
            raise _Broken(f"the connection broke: {type(error).__name__}") from None

    def _reason(self, status: int, text: str) -> str:
        """The server's message on one line, without the key, which some servers repeat."""
        message = " ".join(_message(text).split())
        if self._key:
            message = message.replace(self._key, "***")
        return f"status {status}: {message[:300]}" if message else f"status {status}"


def _run(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


def _end(loop: asyncio.AbstractEventLoop, client: httpx.AsyncClient) -> None:
    """Let go of the connections and of the thread that runs `loop`."""

    async def close() -> None:
        await client.aclose()
        loop.stop()

    asyncio.run_coroutine_threadsafe(close(), loop)


def _without(body: Mapping[str, Any], unknown: frozenset[str]) -> dict[str, Any]:
    rest = {name: value for name, value in body.items() if name not in unknown}
    return rest | {new: body[old] for old, new in _SUCCESSORS.items() if old in unknown and old in body}


def _named(text: str, body: Mapping[str, Any]) -> frozenset[str]:
    """The dispensable parameters of `body` that a refusal speaks of."""
    message = _message(text).lower()
    return frozenset(
        name for name, words in _DISPENSABLE.items() if name in body and any(word in message for word in words)
    )


def _message(text: str) -> str:
    """What a refusal says: OpenAI's `error`, or FastAPI's `detail`; else all of it."""
    try:
        body = from_json(text)
        error = body["error"] if "error" in body else body["detail"]
        if isinstance(error, list):  # of faults; each repeats what it is about, which may be the text of an item
            return "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error)
        return str(error["message"] if isinstance(error, dict) else error)
    except (ValueError, KeyError, TypeError):
        return text[:2000]


def _retry_after(value: str) -> float:
    """Seconds that a Retry-After header asks for, given as a number or as a date; 0 without one."""
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return 0.0


def _parsed(text: str) -> Reply:
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
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
        raise _Broken("the reply is not a chat completion") from None


def _count(value: Any) -> int | None:
    """A number of tokens; None for anything else, and for a number that no model writes."""
    return value if isinstance(value, int) and 0 <= value <= 1_000_000_000 else None
