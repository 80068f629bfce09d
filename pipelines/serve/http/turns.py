"""Lets the requests of different addresses begin in turn, so that a thousand at once delay only their own address.

Ray Serve's proxy and a replica begin a few hundred requests per second and core, in the order in which they arrive.
"""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Message, Receive, Scope, Send

MAX_BEGINNING = 32  # requests that may begin together; 16 per 20 ms is more than a proxy can begin
TURN_S = 0.1  # a request has begun when its response starts, and at the latest after this time


class InTurn:
    """ASGI middleware. The next request to begin is the oldest of the address that has waited longest for a turn."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._num_beginning = 0
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}  # by address, the next one first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        loop = asyncio.get_running_loop()
        if self._num_beginning < MAX_BEGINNING:
            self._num_beginning += 1
        else:
            turn = loop.create_future()
            address, _ = scope.get("client") or ("", 0)
            self._waiting.setdefault(address, deque()).append(turn)
            await turn
        has_begun = False

        def begin() -> None:
            nonlocal has_begun
            if not has_begun:
                has_begun = True
                self._pass_on()

        async def send_noting(message: Message) -> None:
            begin()
            await send(message)

        timer = loop.call_later(TURN_S, begin)
        try:
            await self._app(scope, receive, send_noting)
        finally:
            timer.cancel()
            begin()

    def _pass_on(self) -> None:
        """Give this turn to the next address, which then waits behind the others."""
        while self._waiting:
            address, turns = next(iter(self._waiting.items()))
            del self._waiting[address]
            turn = turns.popleft()
            if turns:
                self._waiting[address] = turns
            if not turn.done():  # else its server is stopping
                turn.set_result(None)
                return
        self._num_beginning -= 1
