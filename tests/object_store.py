"""An S3 server in this process, for tests that read objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest


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
