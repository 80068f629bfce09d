"""Servers of S3 and of Google's store in this process, for tests that read or write objects."""

import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.ports import free_port


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of the server; credentials are in the environment while it runs."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def put(s3_server: str) -> Callable[[str, bytes], str]:
    """`put(key, content)` stores an object in the bucket `rows`, and gives its URI."""
    from pyarrow import fs

    store = fs.S3FileSystem(endpoint_override=s3_server, scheme="http", region="us-east-1", allow_bucket_creation=True)
    store.create_dir("rows")

    def put_object(key: str, content: bytes) -> str:
        with store.open_output_stream(f"rows/{key}", compression=None) as stream:
            stream.write(content)
        return f"s3://rows/{key}?endpoint_override={s3_server}"

    return put_object


@pytest.fixture(scope="session")
def google_server() -> Iterator[str]:
    """The URL of a server that speaks as Google's store does, with the bucket `rows`."""
    from gcp_storage_emulator.server import create_server

    port = free_port()
    with create_server("127.0.0.1", port, in_memory=True, default_bucket="rows"):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def google_put(google_server: str) -> Callable[[str, bytes], str]:
    """`google_put(key, content)` is `put` for the other store."""
    from pyarrow import fs

    store = fs.GcsFileSystem(anonymous=True, endpoint_override=urlsplit(google_server).netloc, scheme="http")

    def put_object(key: str, content: bytes) -> str:
        with store.open_output_stream(f"rows/{key}", compression=None) as stream:
            stream.write(content)
        return f"gs://rows/{key}?endpoint_override={google_server}&anonymous=true"

    return put_object


@pytest.fixture(params=["put", "google_put"])
def put_anywhere(request: pytest.FixtureRequest) -> Callable[[str, bytes], str]:
    """`put` for each of the two stores."""
    return request.getfixturevalue(request.param)


def bucket(endpoint: str, name: str, key: str = "key", secret: str = "secret") -> str:
    """The URI of a new bucket on a server."""
    from pyarrow import fs

    server = urlsplit(endpoint)
    store = fs.S3FileSystem(
        access_key=key,
        secret_key=secret,
        endpoint_override=server.netloc,
        scheme=server.scheme,
        region="us-east-1",
        allow_bucket_creation=True,
    )
    store.create_dir(made := f"{name}-{uuid.uuid4().hex[:8]}")
    return f"s3://{made}"


@pytest.fixture
def node_bucket(s3_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URI of a new bucket on the server, which the usual variables name; the node's folder for it is empty."""
    for name, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_REGION": "us-east-1",
        "KCM_CACHE": tmp_path / "node",
    }.items():
        monkeypatch.setenv(name, str(value))
    return bucket(s3_server, "units")


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A storage path of each kind."""
    if request.param == "folder":
        return str(tmp_path / "storage")
    return f"{request.getfixturevalue('node_bucket')}/pre fix/ü"
