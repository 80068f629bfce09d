"""A server of chat completions that follows a script: real HTTP, request by request."""

import json
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, BinaryIO
from urllib.parse import urlsplit

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
        self.files: dict[str, bytes] = {}
        self.batches: list[dict[str, Any]] = []  # answered when they are looked at for the second time
        self.busiest = self.hung_up = 0  # requests at once; clients that left a response that stalls
        self.closing = threading.Event()
        self._lock, self._busy = threading.Lock(), 0

    def answered_batch(self, questions: bytes) -> bytes:
        """The lines of a batch's output file; a question whose turn is no success is among them, as a fault."""
        lines = []
        for each in map(json.loads, questions.splitlines()):
            turn = self.take(each["body"], {})
            self.done()
            response = {"status_code": turn.status, "body": json.loads(turn.body) if turn.status == 200 else {}}
            lines.append(json.dumps({"custom_id": each["custom_id"], "response": response}))
        return "\n".join(lines).encode()

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


@contextmanager
def fake_upstream() -> Iterator[FakeUpstream]:
    """A server that runs within the block."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    fake = FakeUpstream(f"http://127.0.0.1:{server.server_port}")
    server.fake = fake  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield fake
    fake.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def upstream() -> Iterator[FakeUpstream]:
    """A server of this test's own."""
    with fake_upstream() as fake:
        yield fake


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

    def do_GET(self) -> None:
        fake: FakeUpstream = self.server.fake  # type: ignore[attr-defined]
        *_, below, name = urlsplit(self.path).path.split("/")
        fake.paths.append(self.path)
        if "/models" in self.path:
            turn = fake.take({}, {name.lower(): value for name, value in self.headers.items()})
            fake.done()
            return self._respond(turn, fake)
        if name == "content":
            return self._respond(Turn(body=fake.files[below]), fake)
        if name == "batches":
            return self._respond(Turn(body=json.dumps({"object": "list", "data": fake.batches})), fake)
        batch = next(each for each in fake.batches if each["id"] == name)
        shown = dict(batch)
        if batch["status"] == "in_progress":
            fake.files[f"out-{name}"] = fake.answered_batch(fake.files[batch["input_file_id"]])
            batch |= {"status": "completed", "output_file_id": f"out-{name}"}
        return self._respond(Turn(body=json.dumps(shown)), fake)

    def do_POST(self) -> None:
        fake: FakeUpstream = self.server.fake  # type: ignore[attr-defined]
        fake.paths.append(self.path)
        content = self.rfile.read(int(self.headers["Content-Length"]))
        path = urlsplit(self.path).path
        if path.endswith("/files"):
            name = f"file-{len(fake.files)}"
            fake.files[name] = content.split(b"\r\n\r\n")[-1].split(b"\r\n--")[0]
            return self._respond(Turn(body=json.dumps({"id": name, "object": "file"})), fake)
        if path.endswith("/batches"):
            batch = {"id": f"batch-{len(fake.batches)}", "object": "batch", "status": "in_progress"}
            fake.batches.append(batch | json.loads(content))
            return self._respond(Turn(body=json.dumps(batch)), fake)
        assert path.endswith(("/completions", "/embeddings", "/responses")), path
        body = json.loads(content)
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
            self._stall(fake)
        if turn.cut_after is not None or turn.stall_after is not None:
            self.close_connection = True

    def _stall(self, fake: FakeUpstream) -> None:
        """Say nothing until the client leaves or the server closes, for a minute at most."""
        deadline = time.monotonic() + 60
        while not fake.closing.is_set() and time.monotonic() < deadline:
            if select.select([self.connection], [], [], 0.05)[0]:
                fake.hung_up += 1
                return

    def log_message(self, *_: object) -> None:
        pass
