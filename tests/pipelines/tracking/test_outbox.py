"""What is put into an outbox arrives, in its order, once the server takes it; nobody waits for it until the end."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from tenacity import wait_none

from pipelines.tracking.outbox import Outbox, Record


class Server:
    """Takes records while it is `up`; those that are `bad` never."""

    def __init__(self) -> None:
        self.up = threading.Event()
        self.asked = threading.Event()
        self.taken: list[Record] = []
        self.lines: list[str] = []

    def send(self, record: Record) -> None:
        if not self.up.is_set():
            self.asked.set()
            raise ConnectionError("no route")
        if record.get("bad"):
            raise ValueError("no such run")
        self.taken.append(record)

    def outbox(self, file: Path) -> Outbox:
        return Outbox(
            file,
            self.send,
            lambda error: isinstance(error, ConnectionError),
            self.lines.append,
            where="the server",
            wait=wait_none(),
        )


@pytest.fixture
def server() -> Server:
    return Server()


def test_records_wait_for_an_outage_to_end_and_it_is_said_once(server: Server, tmp_path: Path) -> None:
    outbox = server.outbox(tmp_path / "run" / "unsent")
    records = [{"step": step} for step in range(20)]
    for record in records:
        outbox.put(record)  # returns, though nothing is taken
    assert server.asked.wait(30)
    assert server.taken == []
    server.up.set()
    outbox.close(patience_s=60)
    assert server.taken == records
    assert server.lines == [
        "the server does not answer (ConnectionError: no route); the run goes on, and its records are sent later",
        "the server answers again",
    ]
    assert not (tmp_path / "run" / "unsent").exists()


def test_what_never_got_through_is_sent_by_the_next_process(server: Server, tmp_path: Path) -> None:
    away = Server()
    outbox = away.outbox(tmp_path / "unsent")
    outbox.put({"step": 1})
    outbox.put({"step": 2})
    outbox.close(patience_s=0.05)
    assert "2 records have not reached the server; they are kept in" in away.lines[-1]
    with (tmp_path / "unsent").open("a") as file:
        file.write('{"step": 3')  # torn by a crash
    server.up.set()
    again = server.outbox(tmp_path / "unsent")
    again.put({"step": 4})
    again.close(patience_s=60)
    assert server.taken == [{"step": 1}, {"step": 2}, {"step": 4}]


def test_a_record_that_is_refused_is_said_and_keeps_no_other(server: Server, tmp_path: Path) -> None:
    server.up.set()
    outbox = server.outbox(tmp_path / "unsent")
    for record in ({"step": 1}, {"bad": True}, {"step": 2}):
        outbox.put(record)
    outbox.close(patience_s=60)
    assert server.taken == [{"step": 1}, {"step": 2}]
    assert server.lines == ["the server refuses a record, which is left out: ValueError: no such run"]
