"""A gateway before a language model, as hosted ones have: it counts what is answered, and refuses what is too much.

Only what stands between the cascade and the server can say how often a question was answered, whatever dies meanwhile.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

RETRY_AFTER_S = 1
JSON = {"Content-Type": "application/json"}  # which servers on FastAPI insist on


@dataclass
class Gateway:
    """Passes questions on to `server`, `room` of them at once; None: all. The others get 429 with Retry-After.

    `answered` counts whole answers by the digest of the question; `tokens` and `seconds` are those of all answers.
    """

    server: str
    room: int | None = None
    answered: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    broken: int = 0
    tokens: int = 0
    seconds: float = 0.0
    base_url: str = ""
    _under_way: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def double(self) -> int:
        """Answers to questions that had been answered before."""
        return self.answered.total() - len(self.answered)

    def pass_on(self, question: bytes) -> tuple[int, bytes]:
        """Status and body of the reply; httpx.HTTPError where the server is gone."""
        with self._lock:
            if self.room is not None and self._under_way >= self.room:
                self.refused += 1
                return 429, b'{"error": {"message": "too many requests"}}'
            self._under_way += 1
        started = time.perf_counter()
        try:
            reply = httpx.post(f"{self.server}/chat/completions", content=question, headers=JSON, timeout=120)
        except httpx.HTTPError:
            self.broken += 1
            raise
        finally:
            with self._lock:
                self._under_way -= 1
        if reply.status_code == 200:
            with self._lock:
                self.answered[hashlib.sha256(question).hexdigest()] += 1
                self.tokens += reply.json()["usage"]["total_tokens"]
                self.seconds += time.perf_counter() - started
        return reply.status_code, reply.content


@contextmanager
def gateway(server: str) -> Iterator[Gateway]:
    """A gateway to the server at this address, up to before /chat/completions."""
    passing = Gateway(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            question = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                status, body = passing.pass_on(question)
            except httpx.HTTPError:
                self.close_connection = True  # as the server's own connection does when it is killed
                return
            self.send_response(status)
            if status == 429:
                self.send_header("Retry-After", str(RETRY_AFTER_S))
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    http.daemon_threads = True
    passing.base_url = f"http://127.0.0.1:{http.server_port}/v1"
    threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield passing
    finally:
        http.shutdown()
        http.server_close()
