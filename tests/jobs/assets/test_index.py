"""Source archives come from the index that pip is configured with, as files: nothing in them is built or run."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from jobs.assets.index import PipSettings
from jobs.assets.packages import PipPackage
from kcm.errors import AssetError


def archive(ran: Path) -> bytes:
    """A source distribution whose setup.py leaves a file where it is run."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, text in (("setup.py", f"open({str(ran)!r}, 'w')"), ("PKG-INFO", "Name: tiny_data\nVersion: 1.0\n")):
            entry = tarfile.TarInfo(f"tiny_data-1.0/{name}")
            entry.size = len(text)
            tar.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()


class Index:
    """A package index on this machine; `form` is json or html, `stated` the hash that it tells of its one file."""

    def __init__(self, content: bytes) -> None:
        self.content, self.form = content, "json"
        self.stated: str | None = hashlib.sha256(content).hexdigest()
        self.requests: list[str] = []

    def page(self, path: str) -> tuple[str, bytes] | None:
        if path == "/files/tiny_data-1.0.tar.gz":
            return "application/gzip", self.content
        if path != "/simple/tiny-data/":
            return None
        if self.form == "json":
            hashes = {"sha256": self.stated} if self.stated else {}
            wheel = {"filename": "tiny_data-1.0-py3-none-any.whl", "url": "/files/none.whl", "hashes": {}}
            files = [
                wheel,
                {"filename": "tiny_data-1.0.tar.gz", "url": "/files/tiny_data-1.0.tar.gz", "hashes": hashes},
            ]
            return "application/vnd.pypi.simple.v1+json", json.dumps({"files": files}).encode()
        fragment = f"#sha256={self.stated}" if self.stated else ""
        link = f'<a href="../../files/tiny_data-1.0.tar.gz{fragment}">tiny_data-1.0.tar.gz</a>'
        return "text/html", f"<html><a name=x></a>{link}</html>".encode()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """What pip is configured with, and nothing else."""
    served = Index(archive(tmp_path / "ran"))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            found = served.page(self.path)
            self.send_response(200 if found else 404)
            kind, body = found or ("text/plain", b"")
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple/")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    yield served
    server.shutdown()
    server.server_close()


def package(content: bytes) -> PipPackage:
    return PipPackage("tiny-data", "1.0", sha256=hashlib.sha256(content).hexdigest(), from_source=True)


@pytest.mark.parametrize("form", ["json", "html"])
@pytest.mark.parametrize("states_hash", [True, False])
def test_a_source_archive_is_a_file_and_nothing_of_it_runs(form, states_hash, index, tmp_path):
    index.form = form
    if not states_hash:
        index.stated = None
    found = package(index.content).download(tmp_path, timeout=60)
    assert found.read_bytes() == index.content
    assert not (tmp_path / "ran").exists()
    index.requests.clear()
    assert package(index.content).download(tmp_path, timeout=60) == found
    assert index.requests == []


def test_a_source_archive_with_another_hash_is_refused(index, tmp_path):
    wanted = package(index.content)
    index.content = b"tampered"  # under the hash of the right one
    with pytest.raises(AssetError, match="no index or folder of pip's has a source archive with sha256"):
        wanted.download(tmp_path, timeout=60)
    assert list((tmp_path / "tiny-data").iterdir()) == []
    index.stated = hashlib.sha256(b"tampered").hexdigest()
    index.requests.clear()
    with pytest.raises(AssetError, match="no index or folder of pip's"):
        wanted.download(tmp_path, timeout=60)
    assert index.requests == ["/simple/tiny-data/"]  # it is not even asked for


def test_a_local_folder_of_pip_s_is_looked_through_first(index, tmp_path, monkeypatch):
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "tiny_data-1.0.tar.gz").write_bytes(index.content)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    assert package(index.content).download(tmp_path, timeout=60).read_bytes() == index.content
    assert index.requests == []


def test_an_index_that_does_not_answer_is_told(index, tmp_path, monkeypatch):
    with pytest.raises(AssetError, match=r"tiny-other==1\.0: HTTPStatusError: .*404"):
        PipPackage("tiny-other", "1.0", sha256="0" * 64, from_source=True).download(tmp_path, timeout=60)


def test_where_nothing_is_configured_pip_s_own_index_is_asked(tmp_path, monkeypatch):
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    (default,) = PipSettings.read(60).indexes
    assert default.startswith("https://")
    settings = tmp_path / "pip.conf"
    settings.write_text("[global]\nindex-url = https://a/simple\n[download]\nindex-url = https://b/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://c/simple https://d/simple")
    assert PipSettings.read(60).indexes == ("https://b/simple", "https://c/simple", "https://d/simple")
    monkeypatch.setenv("PIP_INDEX_URL", "https://e/simple")
    assert PipSettings.read(60).indexes[0] == "https://e/simple"
