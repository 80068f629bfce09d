"""How many requests a replica takes, counted where they are worked on.

Ray Serve counts a newcomer among those that wait until it has been handed on. Of many requests that come at the same
moment it would refuse some although there is room for all, so its own limits are wide (`deploy.app.door_options`).
"""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Receive, Scope, Send

from pipelines.serve.config import ServeConfig
from pipelines.serve.http.errors import problem
from pipelines.serve.http.middleware.access import PROBES
from pipelines.serve.schemas import Refusal


class Room:
    """ASGI middleware: `max_ongoing_requests` are worked on, `max_queued_requests` wait, any other is refused by 429.

    Probes take no room: a service that is busy is not dead.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app, self._retry_after_s = app, config.retry_after_s
        self._places = asyncio.Semaphore(config.max_ongoing_requests)
        self._free = config.max_ongoing_requests + config.max_queued_requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        if not self._free:
            refusal = Refusal(429, "too many requests wait already", self._retry_after_s)
            await problem(refusal.status, refusal.detail, refusal.headers)(scope, receive, send)
            return
        self._free -= 1
        try:
            async with self._places:
                await self._app(scope, receive, send)
        finally:
            self._free += 1
