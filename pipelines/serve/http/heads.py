"""Limits the head of a request, its line and headers, in the HTTP server itself: uvicorn with httptools has no limit.

Ray Serve's proxy and the HTTP replicas behind HAProxy read a head whole before an application sees it. So a head that
never ends fills their memory, and a million small headers keep their event loop busy.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus

import uvicorn.config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 32 * 2**10  # of a head; also of trailers and of a chunk's extension. HAProxy takes 16 KiB
MAX_HEADERS = 100
HEAD_TIMEOUT_S = 10.0  # from a connection's start, or a head's first byte, to its end


def limit_heads() -> None:
    """Make every uvicorn server that this process starts from now on use `LimitedHeads`, unless it names a protocol."""
    uvicorn.config.HTTP_PROTOCOLS["auto"] = f"{__name__}:LimitedHeads"


class LimitedHeads(HttpToolsProtocol):
    """Refuses a head by 431 if it is too long or has too many headers, and by 408 if it is not there in time.

    At most one read of the socket (256 KiB) is parsed before the connection is closed.
    """

    _num_bytes = 0  # since the last end of a head, piece of a body, or end of a body
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Wait for the first head."""
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse bytes."""
        self._num_bytes += len(data)
        super().data_received(data)
        if self._num_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)

    def send_400_response(self, msg: str) -> None:
        """Refuse what cannot be parsed, or has too many headers."""
        if self.headers and len(self.headers) >= MAX_HEADERS:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        else:
            super().send_400_response(msg)

    def on_message_begin(self) -> None:
        """Wait for the rest of a head."""
        super().on_message_begin()
        self._wait()

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header or a trailer. ValueError, which ends the parsing, for one too many."""
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError("too many headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """Begin the request."""
        self._stop_waiting()
        self._num_bytes = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Hand a piece on: a body has a limit of its own."""
        self._num_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """End the request."""
        self._num_bytes = 0
        super().on_message_complete()

    def _wait(self) -> None:
        if self._timer is None:
            self._timer = self.loop.call_later(HEAD_TIMEOUT_S, self._refuse, HTTPStatus.REQUEST_TIMEOUT)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: HTTPStatus) -> None:
        """Close the connection, with this answer unless nothing was asked."""
        if self._num_bytes:
            body = b'{"detail": "%s"}' % status.phrase.encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: application/json\r\n" % (status, status.phrase.encode())
                + b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body)
                + body
            )
        self.transport.close()
