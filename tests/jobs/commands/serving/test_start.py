"""What stands in the way of `kcm serve` is reported before a cluster is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from jobs.commands.serving.start import cluster_beside
from kcm.errors import KcmError


def test_a_taken_address_is_reported_before_anything_is_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("jobs.commands.serving.start.connected", lambda *_: pytest.fail("a cluster is started"))
    (config := tmp_path / "run.yaml").write_text(f"name: small\nstorage_path: {tmp_path}\n")

    def prepare() -> None:
        pytest.fail("the bundle is read")

    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with (
            pytest.raises(KcmError, match=rf"the address is taken \(127\.0\.0\.1:{port}\)"),
            cluster_beside(config, [f"serve.port={port}"], None, prepare),
        ):
            pytest.fail("it is served")
