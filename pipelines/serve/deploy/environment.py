"""What a cluster that serves finds in its environment: switches of Ray Serve, a middleware, and where traces go.

A client could switch off Ray Serve's own time limit and its watch for clients that have gone, by two headers. Ray Serve
calls `middleware` in each of its proxies, and in each door that HAProxy leads to, where the environment names it in
RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH. It calls `span_processors` in each process of its own where
RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names that.
"""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kcm.errors import KcmError

GONE = "the replica that had this request is gone"
CLIENT_HEADERS = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


def prepare_environment() -> None:
    """Settings that a local cluster which serves reads when it starts; a person's own settings win."""
    for name, value in {
        # Ray runs its workers at niceness 15, below every other process: a job beside the service would stall it.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middleware",
        # Uvicorn believes X-Forwarded-For of loopback, where any client of this machine could set it.
        "FORWARDED_ALLOW_IPS": "",
        # Importing Ray Serve alone takes a proxy two seconds of CPU: on a busy machine Ray's 5 s end the whole start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # The door computes in threads of its own, and needs no second event loop.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    }.items():
        os.environ.setdefault(name, value)


def span_processors() -> list[Any]:
    """What sends the spans of traced requests to the collector of OTEL_EXPORTER_OTLP_ENDPOINT, by OTLP over HTTP.

    Raises KcmError where the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # an extra
    except ModuleNotFoundError:
        raise KcmError("traces need an exporter", hint="pip install 'kcm-cascade[traces]'") from None
    return [BatchSpanProcessor(OTLPSpanExporter())]


def middleware() -> list[Middleware]:
    """What Ray Serve is to put in front of itself."""
    return [Middleware(UnansweredIs503), Middleware(WithoutClientHeaders)]


class UnansweredIs503:
    """ASGI middleware that answers by 503 what Ray Serve leaves without an answer, such as a request whose door died.

    Uvicorn would answer it by 500, as if the service itself had failed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        begun = False

        async def send_noting(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        await self._app(scope, receive, send_noting)
        if scope["type"] == "http" and not begun:
            error = {"message": GONE, "code": 503}
            response = JSONResponse({"detail": GONE, "error": error}, 503, {"Retry-After": "1"})
            await response(scope, receive, send)


class WithoutClientHeaders:
    """ASGI middleware that drops them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if "headers" in scope:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in CLIENT_HEADERS]
        await self._app(scope, receive, send)
