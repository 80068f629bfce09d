"""One structured log line per request, and the id that the service gives it: feedback names it.

The id that a client or the proxy gives is logged beside it: it need not be unique, and grants nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipelines.serve.http.errors import problem
from pipelines.serve.http.requests import REQUEST_ID_PATTERN
from pipelines.serve.log.entries import Origin

REQUEST_ID = "x-request-id"  # the client's; Ray Serve sets it where there is none, and sends it back
CLIENT_GONE = 499  # the status in the log of a request whose client did not wait for an answer
QUIET = frozenset({"/healthz", "/readyz", "/metrics"})  # asked every few seconds

logger = logging.getLogger("ray.serve")

Log = Callable[[dict[str, Any]], None]


def to_logger(fields: dict[str, Any]) -> None:
    """Log a request where everything else is logged."""
    logger.info("request", extra=fields)


class RequestLog:
    """ASGI middleware that sets `state.origin` and logs `state.log`; neither bodies nor headers are ever logged.

    An unexpected error is answered by 500 and counted by `failed`; where it was raised is logged without its message,
    which may repeat an input.
    """

    def __init__(self, app: ASGIApp, log: Log, failed: Callable[[], None]) -> None:
        self._app, self._log, self._failed = app, log, failed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = dict(scope["headers"]).get(REQUEST_ID.encode(), b"").decode("latin-1")
        fields: dict[str, Any] = {}
        origin = Origin(uuid.uuid4().hex, client_request_id=given or None)
        scope.setdefault("state", {}).update(origin=origin, log=fields)
        if given and not re.fullmatch(REQUEST_ID_PATTERN, given):
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
        except Exception as error:
            self._failed()
            fields["error"] = type(error).__name__
            trace = "".join(traceback.format_tb(error.__traceback__))
            logger.error("request %s: %s\n%s", origin.request_id, fields["error"], trace)
            if status != CLIENT_GONE:
                raise  # the answer has begun: to break the connection is all that is left
            await problem(500, "this should not have happened; it has been logged")(scope, receive, send_noting_status)
        finally:
            if scope["path"] not in QUIET:
                ids = {"request_id": origin.request_id, "client_request_id": origin.client_request_id}
                line = ids | {"path": scope["path"][:100], "status": status}
                self._log(line | {"seconds": round(time.perf_counter() - started, 6)} | fields)


class LineLog:
    """Appends JSON lines to a file, many at once and at most `delay_s` late; a full file is rotated.

    A logger writes each line by itself. That hands the interpreter to the thread that judges and waits to get it back,
    which costs a request of a small model more than all the rest of the interface.
    """

    def __init__(
        self, path: Path, *, delay_s: float = 0.25, max_bytes: int = 128 * 2**20, num_backups: int = 4
    ) -> None:
        self._file = RotatingFileHandler(path, maxBytes=max_bytes, backupCount=num_backups, encoding="utf-8")
        self._delay_s = delay_s
        self._lines: list[str] = []

    def add(self, fields: Mapping[str, Any]) -> None:
        """Log `fields` with the time, on a running event loop."""
        if not self._lines:
            asyncio.get_running_loop().call_later(self._delay_s, self.flush)
        self._lines.append(json.dumps({"time": datetime.now(UTC).isoformat(), **fields}))

    def flush(self) -> None:
        """Write the buffered lines. An error goes to stderr and loses the lines, never a request."""
        lines, self._lines = self._lines, []
        if lines:
            self._file.handle(logging.makeLogRecord({"msg": "\n".join(lines)}))


def request_log() -> LineLog | None:
    """The request log of this replica, a file beside Ray's own log of it; None where Ray writes no file."""
    for handler in logging.getLogger("ray.serve").handlers:
        if path := getattr(getattr(handler, "target", handler), "baseFilename", None):  # Ray buffers its file
            return LineLog(Path(path).with_suffix(".requests.log"))
    return None
