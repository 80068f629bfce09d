"""The log is written beside requests: a database that is away, locked or full holds up no answer, and loses none."""

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy.engine import make_url

from kcm.bundle.answers import Route
from kcm.inputs.content import Content
from pipelines.serve.config import FeedbackConfig, StoredInputs
from pipelines.serve.log import writer as room
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload, RejectedError, UnknownAnswerError
from pipelines.serve.log.tables import DECISIONS, FEEDBACK, PAYLOADS
from pipelines.serve.log.writer import LogWriter
from tests.flaky_proxy import SilentProxy
from tests.full_disk import Disk
from tests.postgres import BACKENDS

LABELS = [Feedback(0, "good")]


def opened(url: str, timeout_s: float = 30.0, **options: Any) -> LogWriter:
    return LogWriter(FeedbackConfig(timeout_s=timeout_s), url, **options)


def decision(request_id: str) -> LoggedDecision:
    return LoggedDecision(Origin(request_id), 0, "1", "small")


def stored(url: str, table: Any = FEEDBACK) -> list[str]:
    return [row["request_id"] for row in DecisionLog(url, 30.0).read(table)]


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({}, 6),
        ({"MAX_QUEUED": 2}, 6),  # the others wait on disk
        ({"MAX_QUEUED_BYTES": 50}, 6),
        ({"MAX_QUEUED": 2, "MAX_SPILLED_BYTES": 0}, 2),
        ({"MAX_QUEUED": 2, "BATCH": 3}, 6),
    ],
)
async def test_decisions_wait_for_the_database_and_overflow_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limits: dict[str, int], kept: int
) -> None:
    """Promise: a database that comes back finds what was answered meanwhile, in its order."""
    for name, value in {"BUFFER_S": 60.0, "REST_S": 0.01, **limits}.items():
        monkeypatch.setattr(room, name, value)
    dropped: list[tuple[str, int]] = []
    later = f"sqlite:///{tmp_path}/later/feedback.db"
    writing = opened(later, on_drop=lambda kind, number: dropped.append((kind, number)))
    for number in range(6):
        writing.add_decisions([replace(decision(f"r{number}"), payload=Payload("x" * 20))])
        with pytest.raises(LogUnavailableError):
            await writing.flush()
    assert not writing.available
    (tmp_path / "later").mkdir()
    await asyncio.sleep(0.02)
    await writing.flush()
    assert writing.available
    assert stored(later, DECISIONS) == stored(later, PAYLOADS) == [f"r{number}" for number in range(kept)]
    writing.close()
    assert dropped == [("decision", 1)] * (6 - kept)


if "postgres" in BACKENDS:

    def test_silent_database_delays_no_answer_and_gets_all_later(
        postgres: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Promise: where a link is cut without a word, answers go on, labels are refused by a deadline."""
        monkeypatch.setattr(room, "QUEUE_S", 30.0)
        proxy = SilentProxy(f"{postgres}/.s.PGSQL.5432")

        async def write() -> None:
            async with proxy.running() as port:
                writing = opened(f"postgresql+psycopg://kcm@127.0.0.1:{port}/{make_url(postgres_url).database}", 2.0)
                await writing.open()
                writing.add_decisions([decision("r0")])
                await writing.flush()
                proxy.silent = True
                monkeypatch.setattr(room, "QUEUE_S", 0.1)
                with pytest.raises(LogUnavailableError, match="silent"):
                    await writing.add_feedback("r0", None, LABELS)
                writing.add_decisions([decision(f"r{number}") for number in range(1, 200)])
                with pytest.raises(LogUnavailableError):
                    await writing.flush()
                assert not writing.available
                proxy.silent = False
                monkeypatch.setattr(room, "QUEUE_S", 30.0)
                while not writing.available or len(await asyncio.to_thread(stored, postgres_url, DECISIONS)) < 200:
                    await asyncio.sleep(0.05)
                await writing.add_feedback("r0", None, LABELS)
                await asyncio.to_thread(writing.close)
            assert stored(postgres_url) == ["r0"]

        asyncio.run(asyncio.wait_for(write(), 240))


def test_payloads_are_kept_as_configured() -> None:
    def kept(route: Route, parts: StoredInputs) -> Payload | None:
        return Payload.of(Content("a text", b"a picture"), np.ones(2, np.float32), route, parts)

    assert kept("large", "none") is None
    assert kept("small", "escalated") is None
    assert kept("large", "escalated") == kept("small", "text") == Payload("a text")
    assert kept("small", "all") == Payload("a text", b"a picture", np.ones(2, "<f4").tobytes())


async def test_old_payloads_are_deleted_while_it_runs(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "EXPIRE_EVERY_S", 0.01)
    writing = LogWriter(FeedbackConfig(keep_bytes=25, timeout_s=30.0), url)
    await writing.open()
    writing.add_decisions([replace(decision(f"r{number}"), payload=Payload("x" * 10)) for number in range(9)])
    await writing.flush()
    while stored(url, PAYLOADS) != ["r7", "r8"]:
        await asyncio.sleep(0.01)
    assert len(stored(url, DECISIONS)) == 9


async def test_what_is_buffered_is_written_when_the_replica_stops(url: str) -> None:
    writing = opened(url)
    writing.add_decisions([decision("r1")])
    writing.close()
    assert stored(url, DECISIONS) == ["r1"]


async def test_label_finds_fresh_answers_of_another_replica(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: a label finds what another replica has answered just now."""
    monkeypatch.setattr(room, "BUFFER_S", 0.05)
    monkeypatch.setattr(room, "KNOWN_AFTER_S", 3.0)
    answering, other = opened(url), opened(url)
    answering.add_decisions([decision("r1")])
    await other.add_feedback("r1", None, LABELS)
    monkeypatch.setattr(room, "KNOWN_AFTER_S", 0.0)
    with pytest.raises(RejectedError):
        await other.add_feedback("made up", None, LABELS)
    assert stored(url) == ["r1"]


async def test_made_up_ids_do_not_all_wait(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: whoever sends labels of requests that never were holds eight places, not all of them."""
    monkeypatch.setattr(room, "KNOWN_AFTER_S", 3600.0)
    writing = opened(url)
    await writing.open()
    sent = [asyncio.ensure_future(writing.add_feedback(f"made up {n}", None, LABELS)) for n in range(20)]
    while sum(each.done() for each in sent) < 12:
        await asyncio.sleep(0.01)
    assert {type(each.exception()) for each in sent if each.done()} == {UnknownAnswerError}
    for each in sent:
        each.cancel()
    await asyncio.gather(*sent, return_exceptions=True)
    later = [asyncio.ensure_future(writing.add_feedback(f"later {n}", None, LABELS)) for n in range(9)]
    await asyncio.wait(later, return_when=asyncio.FIRST_COMPLETED)
    assert [each.done() for each in later] == [False] * 8 + [True]  # the eight places were free again
    for each in later:
        each.cancel()
    await asyncio.gather(*later, return_exceptions=True)


async def test_locked_database_blocks_one_write_and_fails_others(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a locked database makes one write wait, and no request after it."""
    attempts = []
    add = DecisionLog.add_feedback

    def counted(self: DecisionLog, request_id: str, *rest: Any) -> None:
        attempts.append(request_id)
        add(self, request_id, *rest)

    monkeypatch.setattr(DecisionLog, "add_feedback", counted)
    monkeypatch.setattr(room, "REST_S", 3600.0)
    await opened(url).open()
    writing = opened(url, timeout_s=0.05)
    with closing(sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        together = [writing.add_feedback(f"r{number}", None, LABELS) for number in range(20)]
        outcomes = await asyncio.gather(*together, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {LogUnavailableError}
        with pytest.raises(LogUnavailableError):
            await writing.add_feedback("later", None, LABELS)
    assert attempts == ["r0"]


async def test_a_client_that_leaves_takes_nothing_back(url: str) -> None:
    writing = opened(url)
    await writing.open()
    writing.add_decisions([decision("r1"), decision("r2")])
    await writing.flush()
    leaving = asyncio.ensure_future(writing.add_feedback("r1", None, LABELS))
    await asyncio.sleep(0)
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    await writing.add_feedback("r2", None, LABELS)
    assert stored(url) == ["r1", "r2"]


async def test_a_disk_that_fills_while_it_serves(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REST_S", 0.01)
    monkeypatch.setattr(room, "MAX_QUEUED", 40)
    monkeypatch.setattr("tempfile.tempdir", str(disk.folder))  # what waits on disk waits on the same one
    dropped = 0

    def count(kind: str, number: int) -> None:
        nonlocal dropped
        dropped += number

    url = f"sqlite:///{disk.folder}/log.db"
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, count, "films")
    payload = Payload("x" * 20_000)

    def answer(first: int) -> None:
        numbers = range(first, first + 60)
        decisions = [LoggedDecision(Origin(f"r{n}"), 0, "1", "small", payload=payload) for n in numbers]
        writer.add_decisions(decisions)

    answer(0)
    await writer.flush()
    disk.fill()
    answer(60)
    with pytest.raises(LogUnavailableError):
        await writer.flush()
    await asyncio.sleep(0.02)
    with pytest.raises(LogUnavailableError):
        await writer.add_feedback("r0", None, [Feedback(0, "good")])
    assert (writer.available, dropped) == (False, 20)
    disk.clear()
    await asyncio.sleep(0.02)
    await writer.flush()
    await writer.add_feedback("r0", None, [Feedback(0, "good")])
    assert writer.available
    writer.close()
    log = DecisionLog(url, 30.0, "films")
    assert len(log.read(DECISIONS)) == 100
    assert [row["label"] for row in log.read(FEEDBACK)] == ["good"]
    log.close()
