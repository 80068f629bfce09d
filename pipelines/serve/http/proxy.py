"""Passes requests through to one configured upstream with the operator's key, and its replies back as they come.

The caller decides the path, from a fixed list, and the body. Address, key and headers are the operator's: nothing that
identifies the caller goes upstream, and no cookie, redirect or header of a browser's rules comes back.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, TypeAlias

import httpx
from opentelemetry.trace import SpanKind
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from kcm.redact import MASK
from kcm.tracing import span, trace_headers
from pipelines.serve.config import RETRY_AFTER_S, ProxyConfig
from pipelines.serve.http.middleware import CLIENT_GONE, LEAVE
from pipelines.serve.http.openai_api import ROUTE_HEADER
from pipelines.serve.http.refusals import Refusal
from pipelines.serve.http.spending import Spending, StreamedReply, Usage, content_of, parsed
from pipelines.serve.metrics import ServeMetrics

SENT = frozenset({b"accept", b"content-type", b"openai-beta", b"idempotency-key"})  # headers that go upstream
RETURNED = re.compile(
    rb"content-(type|encoding)|cache-control|retry-after(-ms)?|x-should-retry|openai-(processing-ms|version)"
    rb"|x-ratelimit-.+"
)
UPSTREAM = ((ROUTE_HEADER.encode(), b"upstream"),)  # what says that a reply is the upstream's
_QUERY = re.compile(rb"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]{0,4096}")
UPSTREAM_ID = b"x-kcm-upstream-request-id"  # the upstream's `x-request-id`; Ray Serve sets our own
MAX_OPEN = 128  # open calls of a replica at the upstream, streams included
MAX_REPLY_BYTES = 64 * 2**20  # of a reply or a stream: no reply fills the memory
CONNECT_TIMEOUT_S = 5.0
FAREWELL_S = 5.0  # time in which a client has to take the end of a stream that is cut

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class UpstreamCall:
    """A request for the upstream; `path` begins after /v1. Its reply gets the headers `marks`.

    The whole reply to an `is_relayed` call, which the cascade would answer, is kept: it is not paid for again. Only of
    these calls a stream's text is read.
    """

    method: str
    path: str
    query: bytes
    headers: Mapping[bytes, bytes]
    body: bytes
    marks: Headers = UPSTREAM
    is_relayed: bool = False


@dataclass(frozen=True)
class UpstreamReply:
    """`response` is None for a stream, which has been sent. `content` is the text of the first choice, if it is known.

    The stream of a call that was cut has no content.
    """

    status: int
    response: Response | None
    content: str | None = None


class Proxy:
    """The upstream of `config`; calls are paid from `spending`.

    Raises ConfigError if the variable with the key is not set.
    """

    def __init__(self, config: ProxyConfig, metrics: ServeMetrics, spending: Spending) -> None:
        self._config, self._metrics, self._spending = config, metrics, spending
        self._key, self._num_open = config.server.key(), 0
        timeout = httpx.Timeout(config.idle_timeout_s, connect=CONNECT_TIMEOUT_S)
        no_cookies = CookieJar(DefaultCookiePolicy(allowed_domains=()))
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=MAX_OPEN)
        self._client = httpx.AsyncClient(timeout=timeout, cookies=no_cookies, limits=limits, follow_redirects=False)

    async def response(self, request: Request, path: str) -> Response:
        """What the upstream answers at `path`, which must come from a fixed list. Raises Refusal."""
        request.state.log["routes"] = ["upstream"]
        return PassedThrough(self, await self.call(request, path))

    async def call(self, request: Request, path: str) -> UpstreamCall:
        """The caller's request, as it goes upstream. Raises Refusal."""
        body = await json_body(request)
        query: bytes = request.scope["query_string"]
        if not _QUERY.fullmatch(query):
            raise Refusal(422, "query: must be percent-encoded, and at most 4096 bytes")
        headers = {name: value for name, value in request.headers.raw if name in SENT}
        return UpstreamCall(request.method, path, query, headers, body)

    async def pass_through(self, call: UpstreamCall, send: Send) -> UpstreamReply:
        """The reply to a call; the bytes of a stream go to `send` as they come. Raises Refusal."""
        if self._num_open >= MAX_OPEN:
            self._metrics.passed_on(429)
            raise Refusal(429, "too many calls are open at the upstream", RETRY_AFTER_S)
        status, begun = CLIENT_GONE, False

        async def send_noting_begin(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        self._num_open += 1
        try:
            with span(f"pass through {call.path}", SpanKind.CLIENT):
                async with asyncio.timeout(self._config.timeout_s):
                    reply = await self._paid(call) or await self._exchange(call, send_noting_begin)
            status = reply.status
            return reply
        except (Refusal, TimeoutError, httpx.TransportError) as error:
            refusal = self._refusal(error)
            status = refusal.status
            if not begun:
                raise refusal from None
            await _cut(send, refusal.detail)
            return UpstreamReply(status, None)
        finally:
            self._num_open -= 1
            self._metrics.passed_on(status)

    async def _paid(self, call: UpstreamCall) -> UpstreamReply | None:
        """The reply that was paid for the same relayed request before; None if there is none."""
        body = await self._spending.paid(call.body) if call.is_relayed else None
        if body is None:
            return None
        response = Response(body, headers={"content-type": "application/json"})
        response.raw_headers += call.marks
        return UpstreamReply(200, response, content_of(parsed(body)))

    async def _exchange(self, call: UpstreamCall, send: Send) -> UpstreamReply:
        """The reply to a call; a stream has been sent."""
        booking = await self._spending.book(call.body) if call.method == "POST" else None
        try:
            reply = await self._client.send(self._request(call), stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout):
            if booking:
                await self._spending.release(booking)
            raise
        try:
            if booking and reply.status_code >= 300:  # a refused call costs nothing
                await self._spending.release(booking)
                booking = None
            _require_answer(reply.status_code)
            if reply.is_success and reply.headers.get("content-type", "").startswith("text/event-stream"):
                streamed = await self._stream(call, reply, send)
                if booking:  # before the client has read the end, at which it may leave
                    self._spending.settle(booking, streamed.usage)
                await send({"type": "http.response.body", "body": b""})
                return UpstreamReply(reply.status_code, None, streamed.content)
            body = await self._body(reply)
            values = parsed(body)
            content = content_of(values) if reply.is_success else None
            if call.is_relayed and content is not None:
                await asyncio.shield(self._spending.keep(call.body, body, booking, Usage.of(values)))
            elif booking:
                self._spending.settle(booking, Usage.of(values))
            response = Response(body, reply.status_code)
            response.raw_headers += _returned(reply, call.marks)
            return UpstreamReply(reply.status_code, response, content)
        finally:
            await reply.aclose()

    def _request(self, call: UpstreamCall) -> httpx.Request:
        url = httpx.URL(self._config.upstream + call.path, query=call.query or None)
        own = {"accept-encoding": "identity", "user-agent": "kcm"} | trace_headers()
        if self._key:
            own["authorization"] = f"Bearer {self._key}"
        headers = dict(call.headers) | {name.encode(): value.encode() for name, value in own.items()}
        return self._client.build_request(call.method, url, headers=headers, content=call.body)

    async def _body(self, reply: httpx.Response) -> bytes:
        """The whole body; an error's without the key, which some servers repeat."""
        body = bytearray()
        async for chunk in reply.aiter_raw():
            body += chunk
            self._require_length(len(body))
        if reply.is_error and self._key:
            body = body.replace(self._key.encode(), MASK.encode())
        return bytes(body)

    async def _stream(self, call: UpstreamCall, reply: httpx.Response, send: Send) -> StreamedReply:
        """Send a stream's bytes on, all but its end, and return what was read in them."""
        streamed, num_bytes = StreamedReply(reads_content=call.is_relayed), 0
        headers = _returned(reply, call.marks)
        await send({"type": "http.response.start", "status": reply.status_code, "headers": headers})
        async for chunk in reply.aiter_raw():
            num_bytes += len(chunk)
            self._require_length(num_bytes)
            streamed.feed(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        return streamed

    def _require_length(self, num_bytes: int) -> None:
        if num_bytes > MAX_REPLY_BYTES:
            raise Refusal(502, f"the upstream's reply is longer than {MAX_REPLY_BYTES} bytes")

    def _refusal(self, error: Exception) -> Refusal:
        if isinstance(error, Refusal):
            return error
        if isinstance(error, TimeoutError):
            return Refusal(504, f"the upstream has not answered within {self._config.timeout_s:g} s")
        status = 504 if isinstance(error, httpx.TimeoutException) else 502
        return Refusal(status, f"the upstream does not answer: {type(error).__name__}", RETRY_AFTER_S)


async def json_body(request: Request) -> bytes:
    """The body of a request. Raises Refusal for another content type, which browsers send across sites unasked."""
    body = await request.body()
    if body and request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise Refusal(415, "content-type: must be application/json")
    return body


class PassedThrough(Response):
    """The reply to a call, which goes to the upstream when the response is awaited, while the client waits."""

    def __init__(self, proxy: Proxy, call: UpstreamCall) -> None:
        super().__init__()
        self._proxy, self._call = proxy, call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; it gives its place back, since calls that wait for the upstream have a limit of their own.

        A client that leaves closes the connection to the upstream.
        """
        await scope["state"][LEAVE]()
        reply = await while_connected(receive, self._proxy.pass_through(self._call, send))
        if reply and reply.response:
            await reply.response(scope, receive, send)


async def while_connected(receive: Receive, work: Coroutine[Any, Any, UpstreamReply]) -> UpstreamReply | None:
    """What `work` returns; None if the client leaves before, which cancels it."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    tasks = working, _ = asyncio.ensure_future(work), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _require_answer(status: int) -> None:
    """Raise Refusal for replies that concern this service and not its caller."""
    if 300 <= status < 400:
        raise Refusal(502, f"the upstream redirects ({status}), which is not followed: check serve.proxy.upstream")
    if status == 401:
        logger.error("the upstream does not accept the key in the variable that serve.proxy.api_key_env names")
        raise Refusal(502, "the upstream does not accept the key of this service")


def _returned(reply: httpx.Response, marks: Headers) -> list[tuple[bytes, bytes]]:
    """The headers of a reply that its caller gets, with our own."""
    named = [(name.lower(), value) for name, value in reply.headers.raw]
    headers = [(name, value) for name, value in named if RETURNED.fullmatch(name)]
    headers += [(UPSTREAM_ID, value) for name, value in named if name == b"x-request-id"]
    return [*headers, *marks]


async def _cut(send: Send, reason: str) -> None:
    """End a stream early by an event that OpenAI's clients raise as an error."""
    event = f"\n\ndata: {json.dumps({'error': {'message': reason}})}\n\n"
    with suppress(TimeoutError):
        async with asyncio.timeout(FAREWELL_S):
            await send({"type": "http.response.body", "body": event.encode()})
