"""Limits on request bodies, before anything parses them."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serve.config import LimitsConfig
from pipelines.serve.http.errors import problem
from pipelines.serve.schemas import Refusal


class BodyLimit:
    """ASGI middleware: reads a body within the limits and hands it on whole; any other is refused.

    A body that announces its size is refused unread, one that does not as soon as it exceeds the limit. A client that
    has not sent all of it in time gets 408 and loses its place.
    """

    def __init__(self, app: ASGIApp, limits: LimitsConfig) -> None:
        self._app, self._limits = app, limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            body = await self._read(scope, receive)
        except Refusal as refusal:
            # What is left of the body is never read, so that nothing else can come over this connection.
            headers = {**refusal.headers, "Connection": "close"}
            await problem(refusal.status, refusal.detail, headers)(scope, receive, send)
            return
        if body is None:
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    async def _read(self, scope: Scope, receive: Receive) -> bytes | None:
        """The whole body; None where the client has gone."""
        limits = self._limits
        length = dict(scope["headers"]).get(b"content-length", b"0")
        body = bytearray()
        try:
            async with asyncio.timeout(limits.body_timeout_s):
                more = True
                while more:
                    if max(len(body), int(length) if length.isdigit() else 0) > limits.max_body_bytes:
                        raise Refusal(413, f"body: at most {limits.max_body_bytes} bytes are allowed")
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        return None
                    body += message.get("body", b"")
                    more = message.get("more_body", False)
        except TimeoutError:
            raise Refusal(408, f"body: not sent within {limits.body_timeout_s:g} s") from None
        if len(body) > limits.max_body_bytes:
            raise Refusal(413, f"body: at most {limits.max_body_bytes} bytes are allowed")
        if exceeds(bytes(body), limits.max_json_values):
            raise Refusal(413, f"body: at most {limits.max_json_values} JSON keys and values are allowed")
        return bytes(body)


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
