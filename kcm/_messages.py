"""Facts that libraries report only in words: all matching of other people's error messages is here.

If a version words a message differently, only the tests of this module fail.
"""

from __future__ import annotations

import re
from typing import Literal

StoreFault = Literal["no bucket", "expired", "refused", "denied", "no answer"]

# The wording of pyarrow (Amazon's SDK) and of obstore (the server's own answer).
_STORE_FAULTS: tuple[tuple[StoreFault, re.Pattern[str]], ...] = (
    ("no bucket", re.compile("NO_SUCH_BUCKET|NoSuchBucket")),
    ("expired", re.compile("EXPIRED_TOKEN|ExpiredToken|TokenRefreshRequired")),
    ("refused", re.compile("INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch")),
    ("denied", re.compile("ACCESS_DENIED|AccessDenied|HTTP status 40[13]")),
    ("no answer", re.compile("NETWORK_CONNECTION|[Cc]onnect|[Rr]esolve|curl")),
)
_STATUS = re.compile(r"non-2xx status code: (\d+ [A-Za-z ]+)")


def store_fault(error: BaseException) -> StoreFault | None:
    """The fault of an object store, from an error of pyarrow or obstore; None for anything else.

    `refused`: the credentials are unknown. `denied`: known credentials lack a permission.
    """
    return next((fault for fault, words in _STORE_FAULTS if words.search(str(error))), None)


def status_of(error: BaseException) -> str | None:
    """The status of a server's answer, from an error of obstore, such as `503 Service Unavailable`."""
    match = _STATUS.search(str(error))
    return match[1].strip() if match else None
