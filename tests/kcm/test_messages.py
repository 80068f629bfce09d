"""Messages of the installed versions are understood; those of servers are as they are written today."""

import pytest

from kcm._messages import status_of, store_fault


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
