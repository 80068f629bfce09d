"""Waiting for what other threads and processes do: a test never guesses how long that takes."""

import time
from collections.abc import Callable

PATIENCE_S = 120.0  # a machine that does other work beside the tests is no reason for one to fail


def wait_until(ready: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Return once `ready` gives something true."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert time.monotonic() < deadline, f"it did not come to pass within {timeout_s:g} s"
        time.sleep(0.05)
