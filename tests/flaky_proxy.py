"""Proxies that behave as bad networks do: requests are dropped, delayed and duplicated, or a link falls silent."""

import asyncio
import http.client
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"
FAULTS = ("request lost", "answer lost", "delayed", "duplicated")


@dataclass
class FlakyProxy:
    """Forwards to `target`; a `share` of the requests meets one of the faults, which are counted.

    From the first request whose path holds `expires_at` on, if any, credentials have expired, until they are renewed.
    """

    target: str
    share: float = 0.2
    expires_at: str = ""
    expired: bool = False
    faults: Counter[str] = field(default_factory=Counter)
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def renew(self) -> None:
        """Take credentials again."""
        self.expires_at, self.expired = "", False

    def fault(self) -> str | None:
        """What happens to the next request."""
        with self._lock:
            if self._random.random() >= self.share:
                return None
            chosen = self._random.choice(FAULTS)
            self.faults[chosen] += 1
            return chosen

    def forward(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        """Send a request as it came, its Host too, since it is signed; the status, headers and body of the answer."""
        connection = http.client.HTTPConnection(urlsplit(self.target).netloc, timeout=60)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in ("connection", "expect"):
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    @contextmanager
    def running(self) -> Iterator[str]:
        """The URL of the proxy, which answers within the block."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_request(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                proxy.expired |= bool(proxy.expires_at) and proxy.expires_at in self.path
                if proxy.expired:
                    self.answer(400, [("Content-Type", "application/xml")], EXPIRED)
                    return
                fault = proxy.fault()
                if fault == "request lost":
                    self.close_connection = True
                    return
                if fault == "delayed":
                    time.sleep(0.5)
                if fault == "duplicated":
                    proxy.forward(self, body)
                try:
                    status, headers, content = proxy.forward(self, body)
                except OSError:
                    self.close_connection = True
                    return
                if fault == "answer lost":
                    self.close_connection = True
                    return
                self.answer(status, headers, content)

            def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
                self.send_response_only(status)
                for name, value in headers:
                    if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                        self.send_header(name, value)
                length = int(dict(headers).get("Content-Length", 0)) if self.command == "HEAD" else len(content)
                self.send_header("Content-Length", str(length))
                self.end_headers()
                self.wfile.write(content if self.command != "HEAD" else b"")

            do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_request

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class SilentProxy:
    """Forwards TCP connections to a Unix socket; while `silent` it holds every byte back and closes nothing."""

    def __init__(self, target: str) -> None:
        self._target = target
        self.silent = False

    @asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """The port of the proxy on 127.0.0.1, within the block and its event loop."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            self.silent = False
            server.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_unix_connection(self._target)
        await asyncio.gather(self._pump(reader, server_writer), self._pump(server_reader, writer))

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await source.read(65536):
                while self.silent:
                    await asyncio.sleep(0.01)
                sink.write(data)
                await sink.drain()
        sink.close()
