"""A model hub on this machine, scripted by the test."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """A hub on the local machine. `files` are served for every repository; `mood` is serve or fail."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.mood = "serve"
        self.requests: list[str] = []


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that every client of this test talks to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    fake = FakeHub(f"http://127.0.0.1:{server.server_port}")
    server.fake = fake  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", fake.address)
    monkeypatch.setenv("HF_ENDPOINT", fake.address)  # for other processes, which read it when they start
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-cache"))
    yield fake
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def do_POST(self) -> None:
        """Which of some paths exist, as clients of data sets ask."""
        fake: FakeHub = self.server.fake  # type: ignore[attr-defined]
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        names = parse_qs(asked).get("paths") or json.loads(asked or "{}").get("paths", [])
        body = json.dumps(_entries({name: fake.files[name] for name in names if name in fake.files})).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self, *, with_body: bool) -> None:
        fake: FakeHub = self.server.fake  # type: ignore[attr-defined]
        fake.requests.append(self.path)
        body = None if fake.mood == "fail" else self._content(fake)
        if body is None:
            self.send_response(500 if fake.mood == "fail" else 404)
            body = b"{}"
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _content(self, fake: FakeHub) -> bytes | None:
        path = self.path.partition("?")[0]
        if path.startswith("/api/") and "/tree/" in path:
            return json.dumps(_entries(fake.files)).encode()
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in fake.files]
            return json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
        return fake.files.get(path.partition("/resolve/")[2].partition("/")[2])


def _entries(files: dict[str, bytes]) -> list[dict[str, object]]:
    return [
        {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
        for name, content in files.items()
    ]
