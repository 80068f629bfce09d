"""A server of chat completions that follows a script: real HTTP, request by request."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO

import pytest


@dataclass
class Turn:
    """What the server does with one request."""

    status: int = 200
    body: str | bytes = ""
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0
    stall_after: int | None = None  # bytes of the body, then silence
    cut_after: int | None = None  # bytes of the body, then the connection breaks
    drip_s: float = 0.0  # between two bytes of the whole response


def completion(content: str | None, **more: Any) -> Turn:
    """A chat completion with `content`."""
    choice = {"message": {"role": "assistant", "content": content}} | more.pop("choice", {})
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return Turn(body=json.dumps({"choices": [choice], "usage": usage} | more))


def label(name: str, **more: Any) -> Turn:
    """A structured answer."""
    return completion(json.dumps({"label": name}), **more)


class FakeUpstream:
    """A real HTTP server. The script is followed turn by turn, then `otherwise` answers every request."""

    def __init__(self, address: str) -> None:
        self.base_url = f"{address}/v1"
        self.script: list[Turn] = []
        self.otherwise: Callable[[dict[str, Any]], Turn] = lambda _: label("positive")
        self.requests: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.times: list[float] = []
        self.busiest = 0
        self.closing = threading.Event()
        self._lock, self._busy = threading.Lock(), 0

    def plan(self, *turns: Turn) -> None:
        """What happens to the next requests."""
        self.script += turns

    def take(self, body: dict[str, Any], headers: dict[str, str]) -> Turn:
        with self._lock:
            self.requests.append(body)
            self.headers.append(headers)
            self.times.append(time.monotonic())
            self._busy += 1
            self.busiest = max(self.busiest, self._busy)
            planned = self.script.pop(0) if self.script else None
        return planned or self.otherwise(body)

    def done(self) -> None:
        with self._lock:
            self._busy -= 1

    def texts(self) -> list[str]:
        """The items' texts, as they were asked."""
        return [body["messages"][-1]["content"].split("\n")[1] for body in self.requests]


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """A server of this test's own."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    fake = FakeUpstream(f"http://127.0.0.1:{server.server_port}")
    server.fake = fake  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield fake
    fake.closing.set()
    server.shutdown()
    server.server_close()


class _Dripping:
    """A connection that is written to byte by byte."""

    def __init__(self, file: BinaryIO, pause_s: float, closing: threading.Event) -> None:
        self._file, self._pause_s, self._closing = file, pause_s, closing

    def write(self, content: bytes) -> None:
        for number in content:
            self._file.write(bytes([number]))
            self._closing.wait(self._pause_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        fake: FakeUpstream = self.server.fake  # type: ignore[attr-defined]
        fake.paths.append(self.path)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        turn = fake.take(body, {name.lower(): value for name, value in self.headers.items()})
        try:
            fake.closing.wait(turn.delay_s)
            self._respond(turn, fake)
        except OSError:  # the client has hung up
            self.close_connection = True
        finally:
            fake.done()

    def _respond(self, turn: Turn, fake: FakeUpstream) -> None:
        if turn.drip_s:
            self.wfile = _Dripping(self.wfile, turn.drip_s, fake.closing)  # type: ignore[assignment]
        content = turn.body.encode() if isinstance(turn.body, str) else turn.body
        self.send_response(turn.status)
        for name, value in ({"Content-Length": str(len(content))} | turn.headers).items():
            self.send_header(name, value)
        self.end_headers()
        limit = next((n for n in (turn.stall_after, turn.cut_after) if n is not None), len(content))
        self.wfile.write(content[:limit])
        self.wfile.flush()
        if turn.stall_after is not None:
            fake.closing.wait(60)
        if turn.cut_after is not None or turn.stall_after is not None:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass
