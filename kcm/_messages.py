"""What libraries say in words alone: all matching of other people's error messages is here.

A version that words one differently fails in the tests of this module, and nowhere else.
"""

from __future__ import annotations

import re
from typing import Literal

StoreFault = Literal["no bucket", "expired", "refused", "denied", "no answer"]

# As pyarrow (of Amazon's SDK) and obstore (of the server's own answer) write them.
_STORE_FAULTS: tuple[tuple[StoreFault, re.Pattern[str]], ...] = (
    ("no bucket", re.compile("NO_SUCH_BUCKET|NoSuchBucket")),
    ("expired", re.compile("EXPIRED_TOKEN|ExpiredToken|TokenRefreshRequired")),
    ("refused", re.compile("INVALID_ACCESS_KEY_ID|InvalidAccessKeyId|SIGNATURE_DOES_NOT_MATCH|SignatureDoesNotMatch")),
    ("denied", re.compile("ACCESS_DENIED|AccessDenied|HTTP status 40[13]")),
    ("no answer", re.compile("NETWORK_CONNECTION|[Cc]onnect|[Rr]esolve|curl")),
)
_STATUS = re.compile(r"non-2xx status code: (\d+ [A-Za-z ]+)")


def store_fault(error: BaseException) -> StoreFault | None:
    """What is wrong with an object store, by pyarrow or obstore; None for anything else.

    `refused` are credentials that are not known, `denied` is what known ones may not do.
    """
    return next((fault for fault, words in _STORE_FAULTS if words.search(str(error))), None)


def status_of(error: BaseException) -> str | None:
    """The status that a server answered with, by obstore, such as `503 Service Unavailable`."""
    match = _STATUS.search(str(error))
    return match[1].strip() if match else None
