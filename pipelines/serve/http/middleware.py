"""What stands in front of the routes: request ids and log lines, host names, keys and rates, room, and body limits."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import traceback
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import replace
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kcm.tracing import trace_id
from pipelines.serve.breaker import RateLimit
from pipelines.serve.config import RETRY_AFTER_S, LimitsConfig, ServeConfig
from pipelines.serve.http.bodies import REQUEST_ID_PATTERN, problem, refused
from pipelines.serve.http.keys import Keys
from pipelines.serve.http.refusals import Refusal
from pipelines.serve.log.entries import Origin
from pipelines.serve.metrics import ServeMetrics

REQUEST_ID = "x-request-id"  # the client's; Ray Serve sets it if there is none, and returns it
CLIENT_GONE = 499  # the status in the log of a request whose client did not wait for an answer
ANYONE = "anyone"  # the caller if there are no keys
SLOW_BODY_S = 3.0  # a body that takes longer is slow: a client on a bad line, or one that stops on purpose
MAX_SLOW_BODIES = 64  # slow bodies that a replica waits for
MAX_DOWNLOADS = 1  # files of the interface's page that a replica sends at once: one of them is 1.5 MB
DOWNLOAD_S = 10.0  # in which a client must have taken a file
DOCS = "/docs"  # the interface's own page; its files lie below
INDEX, PREFIX = "/", "/page/"  # the page and its files, which hold nothing of the model
PROBES = frozenset({"/healthz", "/readyz"})  # asked by address, every few seconds, and not logged
OPEN = PROBES | {DOCS, "/openapi.json", INDEX}  # without a key

_PORT = re.compile(r":\d*$", re.ASCII)  # of an IPv6 address in brackets nothing else ends so

logger = logging.getLogger("ray.serve")


class Downloads:
    """Sends the files of the interface's page in turn, so that hundreds of them delay no other request."""

    def __init__(self, app: ASGIApp) -> None:
        self._app, self._room = app, asyncio.Semaphore(MAX_DOWNLOADS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or not scope["path"].startswith(f"{DOCS}/"):
            await self._app(scope, receive, send)
            return
        async with self._room:
            with suppress(TimeoutError):
                async with asyncio.timeout(DOWNLOAD_S):
                    await self._app(scope, receive, send)


class RequestLog:
    """Gives each request an id, sets `state.origin`, and logs one line of `state.log`, without bodies and headers.

    The id that a client or the proxy gives is logged beside it: it need not be unique, and grants nothing. The Refusal
    of another middleware becomes its response. An unexpected error is answered by 500 and counted by `failed`; where
    it was raised is logged without its message, which may repeat an input.
    """

    def __init__(self, app: ASGIApp, failed: Callable[[], None]) -> None:
        self._app, self._failed = app, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        client_id = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        fields: dict[str, Any] = {}
        origin = Origin(uuid.uuid4().hex, client_request_id=client_id or None)
        scope.setdefault("state", {}).update(origin=origin, log=fields)
        if client_id and not re.fullmatch(REQUEST_ID_PATTERN, client_id):  # it must not be logged either
            detail = f"{REQUEST_ID}: 1 to 128 printable ASCII characters without spaces are allowed"
            await problem(422, detail)(scope, receive, send)
            return
        started, status = time.perf_counter(), CLIENT_GONE

        async def send_noting_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_noting_status)
        except Refusal as refusal:
            await refused(refusal)(scope, receive, send_noting_status)
        except Exception as error:
            self._failed()
            fields["error"] = type(error).__name__
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request %s: %s\n%s", origin.request_id, fields["error"], trace)
            if status != CLIENT_GONE:
                raise  # the answer has begun: to break the connection is all that is left
            await problem(500, "this should not have happened; it has been logged")(scope, receive, send_noting_status)
        finally:
            if scope["path"] not in PROBES:
                ids = {"request_id": origin.request_id, "client_request_id": origin.client_request_id}
                ids["trace_id"] = trace_id()
                line = ids | {"path": scope["path"][:100], "status": status}
                logger.info("request", extra=line | {"seconds": round(time.perf_counter() - started, 6)} | fields)


class AllowedHosts:
    """Serves these host names alone, in any case and with any port; `*` stands for any.

    It stops DNS rebinding: another site's page whose name has been pointed at this address reaches the service from a
    browser of this machine, but the browser still sends that name in `Host`. Starlette's TrustedHostMiddleware takes no
    IPv6 address, and the first of several headers.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]) -> None:
        self._app = app
        self._any = "*" in hosts
        self._names = frozenset(name.lower() for name in hosts if "*" not in name)
        self._endings = tuple(name[1:].lower() for name in hosts if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        is_checked = scope["type"] == "http" and not self._any and scope["path"] not in PROBES
        if is_checked and not self._is_allowed(scope):
            raise Refusal(421, "host: this name is not served here; serve.allowed_hosts lists those that are")
        await self._app(scope, receive, send)

    def _is_allowed(self, scope: Scope) -> bool:
        hosts = [value for name, value in scope["headers"] if name == b"host"]
        if len(hosts) != 1:
            return False
        host = _PORT.sub("", hosts[0].decode("latin-1")).lower()
        return host in self._names or (bool(self._endings) and host.endswith(self._endings))


class Access:
    """Requires `Authorization: Bearer KEY` if there are keys, and limits each caller's rate."""

    def __init__(self, app: ASGIApp, keys: Keys | None = None, rate_limit: RateLimit | None = None) -> None:
        self._app, self._keys, self._rate_limit = app, keys, rate_limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "http" and not _is_open(scope["path"]):
            self._admit(scope)
        await self._app(scope, receive, send)

    def _admit(self, scope: Scope) -> None:
        """Note the caller of a request. Raises Refusal without a valid key, and for a key that is used too often."""
        caller = self._caller(scope)
        if caller is None:
            detail, headers = "authorization: a valid key is needed, as Bearer KEY", {"WWW-Authenticate": "Bearer"}
            raise Refusal(401, detail, headers=headers)
        scope["state"]["log"]["caller"] = caller
        if self._keys:
            scope["state"]["origin"] = replace(scope["state"]["origin"], caller=caller)
        if self._rate_limit and (wait_s := self._rate_limit.wait_s(caller)):
            raise Refusal(429, "this key has been used too often", wait_s)

    def _caller(self, scope: Scope) -> str | None:
        """The name of the caller; None without a valid key."""
        if self._keys is None:
            return ANYONE
        header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
        scheme, _, key = header.partition(" ")
        return self._keys.caller(key.strip()) if scheme.lower() == "bearer" else None


def _is_open(path: str) -> bool:
    return path in OPEN or path.startswith((f"{DOCS}/", PREFIX))


class BodyLimit:
    """Reads a body before anything parses it, and before the request takes a place; hands it on whole.

    A body that is incomplete after SLOW_BODY_S is slow. Of slow bodies MAX_SLOW_BODIES are waited for, and
    `max_slow_bodies_per_peer` from one address, until `body_timeout_s`; others are refused by 408. So clients that
    stop sending hold up nobody whose body arrives at once, whatever their number and addresses. A body over the size
    limit is refused unread if it announces its size. Pages and probes have no body and are handed on as they are.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig, metrics: ServeMetrics) -> None:
        self._app, self._limits, self._metrics = app, limits, metrics
        self._num_unread, self._max_values = 0, limits.max_json_values
        self._slow: Counter[str] = Counter()  # slow bodies by address

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        try:
            with self._counted():
                body = await self._read(scope, receive)
        except Refusal as refusal:
            self._metrics.turned_away(refusal.status)
            # What is left of the body is never read, so that nothing else can come over this connection.
            raise Refusal(refusal.status, refusal.detail, headers={"Connection": "close"}) from None
        if body is None:
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    @contextmanager
    def _counted(self) -> Iterator[None]:
        self._num_unread += 1
        self._metrics.set_unread(self._num_unread)
        try:
            yield
        finally:
            self._num_unread -= 1
            self._metrics.set_unread(self._num_unread)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None if the client has gone."""
        limits = self._limits
        if content_length(scope["headers"]) > limits.max_body_bytes:
            raise self._too_long()
        reading = asyncio.ensure_future(self._received(receive))
        try:
            if not await self._comes_soon(reading):
                await self._wait_for_slow(reading, (scope.get("client") or ("",))[0])
            body = await reading
        finally:
            reading.cancel()
        if body and b"\0" in body:  # Python reads UTF-16 as well, in which quotation marks cannot be counted
            raise Refusal(400, "body: must be JSON in UTF-8")
        if body is not None and exceeds(body, self._max_values):
            raise Refusal(413, f"body: at most {self._max_values} JSON keys and values are allowed")
        return body

    async def _comes_soon(self, reading: asyncio.Future[bytes | None]) -> bool:
        """Whether the body is there before it counts as slow; time in which this replica was busy does not count."""
        clock, limit_s = asyncio.get_running_loop().time, min(SLOW_BODY_S, self._limits.body_timeout_s)
        began = clock()
        while True:
            asked = clock()
            done, _ = await asyncio.wait({reading}, timeout=limit_s)
            on_time = clock() - asked < 1.5 * limit_s
            if done or on_time or clock() - began > self._limits.body_timeout_s:
                return bool(done)

    async def _wait_for_slow(self, reading: asyncio.Future[bytes | None], peer: str) -> None:
        limits = self._limits
        if self._slow.total() >= MAX_SLOW_BODIES or self._slow[peer] >= limits.max_slow_bodies_per_peer:
            raise Refusal(408, f"body: not sent within {SLOW_BODY_S:g} s, and too many others are slow as well")
        self._slow[peer] += 1
        try:
            done, _ = await asyncio.wait({reading}, timeout=limits.body_timeout_s - SLOW_BODY_S)
        finally:
            self._slow[peer] -= 1
            if not self._slow[peer]:
                del self._slow[peer]
        if not done:
            raise Refusal(408, f"body: not sent within {limits.body_timeout_s:g} s")

    async def _received(self, receive: Receive) -> bytes | None:
        body, more = bytearray(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limits.max_body_bytes:
                raise self._too_long()
        return bytes(body)

    def _too_long(self) -> Refusal:
        return Refusal(413, f"body: at most {self._limits.max_body_bytes} bytes are allowed")


def content_length(headers: Iterable[tuple[bytes, bytes]]) -> int:
    """The size that a request announces, 0 without one; Refusal (400) unless it is one number."""
    values = {value.strip() for name, value in headers if name == b"content-length"}
    if len(values) > 1 or not all(value.isdigit() for value in values):  # of bytes, these are ASCII digits alone
        raise Refusal(400, "content-length: must be one number of bytes")
    # int() refuses thousands of digits; twenty are more than any body has.
    return max((int(value.lstrip(b"0")[:20] or b"0") for value in values), default=0)


class RequestLimit:
    """Lets `max_ongoing_requests` be worked on and `max_queued_requests` wait; any other is refused by 429.

    Ray Serve counts a newcomer among those that wait until it has been handed on. Of many requests that come at the
    same moment it would refuse some although there is room for all, so its own limits are wide
    (`deploy.app.http_replica_options`). Pages and probes take no place: a service that is busy is not dead. A place is
    free again when the response begins: a client that reads slowly holds none.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: ServeMetrics) -> None:
        self._app, self._metrics = app, metrics
        self._ongoing = asyncio.Semaphore(config.max_ongoing_requests)
        self._free = config.max_ongoing_requests + config.max_queued_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or _is_open(scope["path"]):
            await self._app(scope, receive, send)
            return
        if not self._free:
            self._metrics.turned_away(429)
            raise Refusal(429, "too many requests wait already", RETRY_AFTER_S)
        async with AsyncExitStack() as place:
            self._free -= 1
            place.callback(self._leave)
            await place.enter_async_context(self._ongoing)

            async def send_and_leave(message: Message) -> None:
                await place.aclose()
                await send(message)

            await self._app(scope, receive, send_and_leave)

    def _leave(self) -> None:
        self._free += 1


def exceeds(body: bytes, max_values: int) -> bool:
    """Whether JSON has more than `max_values` keys and values; strings may hold anything, and JSON need not be valid.

    Parsing builds an object for each of them, and each may become an error. What is counted are strings, and the
    brackets and commas outside them: no fewer than there are values. Nothing here grows with more than the bytes.
    """
    if len(body) <= max_values:
        return False
    if b"\\" in body:
        body = body.replace(rb"\\", b"").replace(rb"\"", b"")  # what is left of quotation marks ends or begins a string
    num_strings = body.count(b'"') // 2
    if num_strings > max_values:
        return True
    outside = b"".join(body.split(b'"')[::2])
    return num_strings + sum(outside.count(mark) for mark in (b",", b"[", b"{")) > max_values
