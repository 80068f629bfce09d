"""One structured log line per request, and the id that it shares with the answer and with feedback."""

from __future__ import annotations

import logging
import re
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serve.http.errors import problem
from pipelines.serve.http.requests import REQUEST_ID_PATTERN

REQUEST_ID = "x-request-id"  # set by Ray Serve's proxy where the client sent none, and sent back by it
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds

logger = logging.getLogger("ray.serve")

Log = Callable[[dict[str, Any]], None]


def to_logger(fields: dict[str, Any]) -> None:
    """Log a request where everything else is logged."""
    logger.info("request", extra=fields)


class RequestLog:
    """ASGI middleware that sets `state.request_id` and logs `state.log`; neither bodies nor headers are ever logged."""

    def __init__(self, app: ASGIApp, log: Log) -> None:
        self._app, self._log = app, log

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        fields: dict[str, Any] = {}
        scope.setdefault("state", {}).update(request_id=given or uuid.uuid4().hex, log=fields)
        if given and not re.fullmatch(REQUEST_ID_PATTERN, given):
            detail = f"{REQUEST_ID}: 1 to 128 printable ASCII characters without spaces are allowed"
            await problem(422, detail)(scope, receive, send)
            return
        started, status = time.perf_counter(), 499  # what a client that has gone is not told

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if scope["path"] not in QUIET:
                line = {"request_id": scope["state"]["request_id"], "path": scope["path"][:100], "status": status}
                self._log(line | {"seconds": round(time.perf_counter() - started, 6)} | fields)
