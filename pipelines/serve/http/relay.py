"""A request of the template that the small model does not keep goes upstream as its caller wrote it.

The caller gets the upstream's own reply. The label in it is the large model's answer in the decision log.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from kcm.large import LargeAnswer
from kcm.large.base import Cost
from kcm.logs.reading import ReplyReading
from pipelines.serve.cascade.models.escalation import LargeUnavailable
from pipelines.serve.cascade.version import Relay, Unlabelled
from pipelines.serve.config import RETRY_AFTER_S
from pipelines.serve.errors import RequestError
from pipelines.serve.http.middleware import CLIENT_GONE, LEAVE
from pipelines.serve.http.openai_api import REQUEST_HEADER, ROUTE_HEADER
from pipelines.serve.http.proxy import Proxy, UpstreamReply, while_connected
from pipelines.serve.http.refusals import Refusal

PATH = "/chat/completions"
_RETRIED = frozenset({402, 408, 409, 425, 429})  # refusals that are no fault of the request


class RelayedReply(Response):
    """The reply to a request of the template, from `answer`, which gets what asks the upstream.

    It begins when it is awaited, since a stream of the upstream is sent as it comes.
    """

    def __init__(
        self, proxy: Proxy, request: Request, reading: ReplyReading, answer: Callable[[Relay], Awaitable[Response]]
    ) -> None:
        super().__init__()
        self._proxy, self._request, self._reading, self._answer = proxy, request, reading, answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Raises RequestError if nobody answers."""
        relay = UpstreamRelay(self._proxy, self._request, self._reading, receive, send)
        response: Response | None
        try:
            response = await self._answer(relay)
        except (Unlabelled, RequestError):
            if relay.reply is None:
                raise
            response = relay.reply.response
        else:
            if relay.reply and relay.is_answered:
                response = relay.reply.response
        if response is not None:
            await response(scope, receive, send)


class UpstreamRelay:
    """Asks the upstream by the caller's own request, once; `reply` is what it said, None if it has not answered.

    `is_answered` says whether the reply has a label.
    """

    def __init__(self, proxy: Proxy, request: Request, reading: ReplyReading, receive: Receive, send: Send) -> None:
        self._proxy, self._request, self._reading = proxy, request, reading
        self._receive, self._send = receive, send
        self.reply: UpstreamReply | None = None
        self.is_answered = False

    async def ask(self, labels: Sequence[str]) -> list[LargeAnswer] | LargeUnavailable:
        """The label in the upstream's reply, a position among `labels`; LargeUnavailable for a server in trouble.

        Raises Unlabelled for another reply, such as an error that is the caller's; Refusal if nothing can be asked.
        """
        await self._request.scope["state"][LEAVE]()
        started = time.perf_counter()
        try:
            reply = await self._asked()
        except Refusal as refusal:
            if not _is_trouble(refusal.status):
                raise
            return _unavailable(refusal.detail, refusal.status)
        self.reply = reply
        if reply.response is not None and _is_trouble(reply.status):
            return _unavailable(f"the upstream answers {reply.status}", reply.status)
        label = None if reply.content is None else self._reading.label(reply.content, tuple(labels))
        if label is None:
            raise Unlabelled
        self.is_answered = True
        return [LargeAnswer(labels.index(label), cost=Cost(time.perf_counter() - started))]

    async def _asked(self) -> UpstreamReply:
        self._request.state.log["routes"] = ["large"]
        marks = ((ROUTE_HEADER, "large"), (REQUEST_HEADER, self._request.state.origin.request_id))
        call = await self._proxy.call(self._request, PATH)
        call = replace(call, is_relayed=True, marks=tuple((name.encode(), value.encode()) for name, value in marks))
        reply = await while_connected(self._receive, self._proxy.pass_through(call, self._send))
        if reply is None:
            raise Refusal(CLIENT_GONE, "the client has gone")
        return reply


def _unavailable(reason: str, status: int) -> LargeUnavailable:
    """The upstream as a large model that gave no answer; without another answer its caller gets this status."""
    return LargeUnavailable(reason, lambda detail: Refusal(status, detail, RETRY_AFTER_S))


def _is_trouble(status: int) -> bool:
    """Whether the upstream cannot answer anybody, or not now."""
    return status >= 500 or status in _RETRIED
