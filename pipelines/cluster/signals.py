"""Restoring signal handlers that Ray replaces."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def handlers_restored(*signals: signal.Signals) -> Iterator[None]:
    """Restore the present handlers of `signals` after the block.

    They are set again even where Python sees no change: Ray's C++ side replaces the SIGTERM handler below Python.
    """
    if threading.current_thread() is not threading.main_thread():  # which alone may set handlers, in Ray too
        yield
        return
    handlers = {number: signal.getsignal(number) for number in signals}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
