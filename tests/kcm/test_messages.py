"""Messages of the installed versions are understood; those of servers are as they are written today."""

from __future__ import annotations

import io

import pyarrow as pa
import pytest
from pyarrow import json as pa_json

from kcm._messages import is_longer_than_a_block, status_of, store_fault


def test_pyarrow_says_that_a_row_is_longer_than_a_block() -> None:
    row = b'{"text": "' + b"x" * 5000 + b'"}\n'
    with pytest.raises(pa.ArrowInvalid) as caught:
        pa_json.read_json(io.BytesIO(row), read_options=pa_json.ReadOptions(block_size=1000))
    assert is_longer_than_a_block(caught.value)


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ("When reading: AWS Error NO_SUCH_BUCKET during GetObject", "no bucket"),
        ("<Code>ExpiredToken</Code>", "expired"),
        ("AWS Error INVALID_ACCESS_KEY_ID during HeadObject", "refused"),
        ("<Code>SignatureDoesNotMatch</Code>", "refused"),
        ("AWS Error ACCESS_DENIED during HeadObject operation: HTTP status 403", "denied"),
        ("AWS Error NETWORK_CONNECTION: curlCode: 7", "no answer"),
        ("disk quota exceeded", None),
    ],
)
def test_what_object_stores_say(message: str, fault: str | None) -> None:
    assert store_fault(OSError(message)) == fault


def test_the_status_of_a_server_is_found() -> None:
    assert status_of(OSError("non-2xx status code: 503 Service Unavailable: body")) == "503 Service Unavailable"
    assert status_of(OSError("nothing")) is None
