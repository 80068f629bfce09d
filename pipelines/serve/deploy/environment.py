"""The environment of a serving cluster: switches of Ray Serve, a middleware, and the target of traces.

With two headers a client could switch off Ray Serve's time limit and its check for clients that have left, and with a
head that never ends it could stop a proxy. If RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH names `middleware`, Ray Serve
calls it in each of its proxies, and in each HTTP replica behind HAProxy, before the HTTP server starts. If
RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH names `span_processors`, Ray Serve calls it in each of its processes.
"""

from __future__ import annotations

import os
from typing import Any

from opentelemetry.sdk.trace.export import BatchSpanProcessor
from starlette.middleware import Middleware
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from kcm.errors import KcmError
from pipelines.serve.http.heads import limit_heads
from pipelines.serve.http.turns import InTurn

GONE = "the replica that handled this request has died"
CLIENT_HEADERS = frozenset({b"x-request-timeout-seconds", b"x-request-disconnect-disabled"})


def prepare_environment() -> None:
    """Settings that a local serving cluster reads when it starts; the user's own settings win."""
    for name, value in {
        # Ray runs its workers at niceness 15, below every other process: another job would stall the service.
        "RAY_worker_niceness": "0",
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middleware",
        # Uvicorn trusts X-Forwarded-For from loopback, which any client on this machine could set.
        "FORWARDED_ALLOW_IPS": "",
        # Importing Ray Serve takes a proxy two seconds of CPU: on a busy machine Ray's limit of 5 s aborts the start.
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        # The HTTP replica computes in its own threads and needs no second event loop.
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    }.items():
        os.environ.setdefault(name, value)


def span_processors() -> list[Any]:
    """The exporter that sends spans of traced requests to OTEL_EXPORTER_OTLP_ENDPOINT, by OTLP over HTTP.

    Raises KcmError if the exporter is not installed.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # an extra
    except ModuleNotFoundError:
        raise KcmError("traces need an exporter", hint="pip install 'kcm-cascade[traces]'") from None
    return [BatchSpanProcessor(OTLPSpanExporter())]


def middleware() -> list[Middleware]:
    """The middlewares that Ray Serve puts in front of itself; its HTTP server gets limits for heads."""
    limit_heads()
    return [Middleware(InTurn), Middleware(UnansweredIs503), Middleware(WithoutClientHeaders)]


class UnansweredIs503:
    """ASGI middleware that answers requests with 503 if Ray Serve does not, for example because their replica died.

    Uvicorn would answer with 500, as if the service itself had failed.
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
