"""A limit on the size of request bodies, before anything parses them."""

from __future__ import annotations

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serve.http.errors import problem


class BodyLimit:
    """ASGI middleware: reads a body of at most `max_bytes` and hands it on whole; a longer one is answered by 413.

    A body that announces its size is refused unread, one that does not as soon as it exceeds the limit.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = None if self._announced(scope) > self._max_bytes else await self._read(receive)
        if body is None:
            detail = f"body: at most {self._max_bytes} bytes are allowed"
            await problem(413, detail)(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)

    @staticmethod
    def _announced(scope: Scope) -> int:
        length = dict(scope["headers"]).get(b"content-length", b"0")
        return int(length) if length.isdigit() else 0

    async def _read(self, receive: Receive) -> bytes | None:
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > self._max_bytes:
                return None
            if not message.get("more_body", False):
                return bytes(body)
