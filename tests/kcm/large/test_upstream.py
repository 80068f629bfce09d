import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from kcm.large import upstream


def test_threads_that_ask_their_first_question_at_once_share_an_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client whose connections live in another loop fails with `bound to a different event loop`."""
    new_event_loop, ready = asyncio.new_event_loop, threading.Barrier(4)

    def slow() -> asyncio.AbstractEventLoop:
        time.sleep(0.05)
        return new_event_loop()

    def started(_: int) -> asyncio.AbstractEventLoop:
        ready.wait()
        return upstream._event_loop()

    monkeypatch.setattr(asyncio, "new_event_loop", slow)
    upstream._started_loop.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(started, range(4)))) == 1
