"""Headers by which a client could switch off Ray Serve's own time limit and its watch for clients that have gone.

Ray Serve calls `middleware` in each of its proxies and in each door that HAProxy leads to, where the environment of the
cluster names it in RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH.
"""

from __future__ import annotations

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serve.deploy.haproxy_config import CLIENT_HEADERS

IMPORT_PATH = "pipelines.serve.deploy.client_headers:middleware"
_DROPPED = frozenset(name.encode() for name in CLIENT_HEADERS)


def middleware() -> list[Middleware]:
    """What Ray Serve is to put in front of itself."""
    return [Middleware(WithoutClientHeaders)]


class WithoutClientHeaders:
    """ASGI middleware that drops them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if "headers" in scope:
            scope["headers"] = [(name, value) for name, value in scope["headers"] if name.lower() not in _DROPPED]
        await self._app(scope, receive, send)
