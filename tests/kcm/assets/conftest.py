"""Sources that stand in for the real ones: a package index made of tiny wheels, and a hub that does as it is told."""

from __future__ import annotations

import hashlib
import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from kcm.assets.pip import PipPackage

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., PipPackage]:
    """`index(name, {path: content})` offers a wheel to pip, which reaches no other index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))

    def offer(name: str, files: dict[str, bytes]) -> PipPackage:
        wheel = folder / f"{name}-1.0-py3-none-any.whl"
        info = {
            f"{name}-1.0.dist-info/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n".encode(),
            f"{name}-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
            f"{name}-1.0.dist-info/RECORD": b"",
        }
        with zipfile.ZipFile(wheel, "w") as archive:
            for path, content in {**files, **info}.items():
                archive.writestr(path, content)
        return PipPackage(name, "1.0", sha256=hashlib.sha256(wheel.read_bytes()).hexdigest())

    return offer


class FakeHub:
    """A hub on the local machine. `files` are served for every repository; `mood` is serve, hang or fail."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.files: dict[str, bytes] = {}
        self.mood = "serve"
        self.requests: list[str] = []
        self.closing = threading.Event()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeHub]:
    """A hub that every client of this test talks to."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    fake = FakeHub(f"http://127.0.0.1:{server.server_port}")
    server.fake = fake  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", fake.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub-cache"))
    yield fake
    fake.closing.set()
    server.shutdown()
    server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._respond(with_body=True)

    def do_HEAD(self) -> None:
        self._respond(with_body=False)

    def log_message(self, *_: object) -> None:
        pass

    def _respond(self, *, with_body: bool) -> None:
        fake: FakeHub = self.server.fake  # type: ignore[attr-defined]
        fake.requests.append(self.path)
        if fake.mood == "hang":
            fake.closing.wait(60)
            return
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
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in fake.files.items()
            ]
            return json.dumps(entries).encode()
        if path.startswith("/api/"):
            siblings = [{"rfilename": name} for name in fake.files]
            return json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
        return fake.files.get(path.partition(f"/resolve/{COMMIT}/")[2])
