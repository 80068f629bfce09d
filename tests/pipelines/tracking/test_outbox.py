"""What is put into an outbox arrives, in its order, once the server takes it; nobody waits for it until the end."""

import subprocess
import sys
import threading
from functools import partial

import pytest
from tenacity import wait_none

from pipelines.tracking.outbox import Outbox


class Server:
    """Takes numbers while it is `up`; negative ones never."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.asked = threading.Event()
        self.taken: list[int] = []
        self.lines: list[str] = []

    def send(self, number: int) -> None:
        if not self.up.is_set():
            self.asked.set()
            raise ConnectionError("no route")
        if number < 0:
            raise ValueError("no such run")
        self.taken.append(number)

    def outbox(self, *numbers: int) -> Outbox:
        outbox = Outbox(
            lambda error: isinstance(error, ConnectionError), self.lines.append, where="the server", pause=wait_none()
        )
        for number in numbers:
            outbox.put(partial(self.send, number))  # returns, also where nothing is taken
        return outbox


@pytest.fixture
def server() -> Server:
    return Server()


def test_records_wait_for_an_outage_to_end_and_it_is_said_once(server: Server) -> None:
    outbox = server.outbox(*range(20))
    assert server.asked.wait(30)
    assert server.taken == []
    server.up.set()
    outbox.close(patience_s=60)
    assert server.taken == list(range(20))
    assert server.lines == [
        "the server does not answer (ConnectionError: no route); the run goes on, and its records are sent later",
        "the server answers again",
    ]


def test_what_has_not_got_through_in_the_end_is_said_with_what_to_do(server: Server) -> None:
    server.outbox(1, 2).close(patience_s=0.05)
    assert "2 records have not reached the server; start the run again" in server.lines[-1]
    server.up.set()
    assert server.taken == []


def test_a_process_ends_while_a_server_takes_its_time_to_fail() -> None:
    """Promise: nobody waits longer than `close` was told to, however long one request hangs."""
    program = """
import threading
from pipelines.tracking.outbox import Outbox
outbox = Outbox(lambda error: True, print, where="the server")
outbox.put(lambda: threading.Event().wait(600))
outbox.close(patience_s=0.05)
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=240, check=True)
    assert "1 records have not reached the server" in ended.stdout


def test_a_record_that_is_refused_is_said_and_keeps_no_other(server: Server) -> None:
    server.up.set()
    server.outbox(1, -1, 2).close(patience_s=60)
    assert server.taken == [1, 2]
    assert server.lines == ["the server refuses a record, which is left out: ValueError: no such run"]
