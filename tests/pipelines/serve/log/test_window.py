"""What an update reads: every decision of a window once, with all that became known of it."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.bundle.answers import Route
from kcm.errors import DataError
from kcm.inputs.content import Content
from kcm.sql import insert
from kcm.tasks.units import unit_digest, unit_of
from pipelines.serve.log import window as room
from pipelines.serve.log.database import Database, log_key, share_numbers
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.tables import DECISIONS
from pipelines.serve.log.window import WINDOW, LogReader


def decision(request_id: str, item: int = 0, route: Route = "small", **values: Any) -> LoggedDecision:
    known = {
        "audit_share": 0.25,
        "small_label": "bad",
        "gate_score": 0.5,
        "unit": unit_digest(Content(request_id)),
        "large_identity": "large/7",
    }
    return LoggedDecision(Origin(request_id), item, "films/3", route, **(known | values))


@pytest.fixture
def reader(any_url: str, log: DecisionLog) -> Iterator[LogReader]:
    with LogReader(any_url, "films") as reader:
        yield reader


def whole(reader: LogReader) -> list[dict[str, Any]]:
    return reader.window(0, reader.watermark()).to_pylist()


def test_a_window_says_of_every_decision_all_that_is_known(log: DecisionLog, reader: LogReader) -> None:
    known_C = np.array([0.125, 0.875], np.float32)
    payload = Payload("a text", b"a picture", np.array([1.5, -2.0], "<f4").tobytes())
    log.add_decisions(
        [
            decision("r1", 0, task="films", payload=payload),
            decision("r1", 1, "large", payload=Payload("only text"), large_label="good", large_probabilities_C=known_C),
            decision("r1", 2, "small_degraded"),
            decision("r2", 0, drawn=True),
            decision("r2", 1, drawn=True),
            decision("r2", 2, drawn=True),
            decision("r3", 0, "large", large_label="bad"),
        ]
    )
    log.finish_audits("r2", {0: "good", 1: None}, {0: known_C})
    log.add_feedback("r2", None, [Feedback(1, "good", "sent with the label", "films")])
    rows = whole(reader)
    assert [(row["request_id"], row["item"]) for row in rows] == [
        ("r1", 0), ("r1", 1), ("r1", 2), ("r2", 0), ("r2", 1), ("r2", 2), ("r3", 0)
    ]  # fmt: skip
    assert [row["number"] for row in rows] == sorted({row["number"] for row in rows})
    assert [row["state"] for row in rows] == [None, "answered", "lost", "answered", "lost", "drawn", "answered"]
    assert [row["large_label"] for row in rows] == [None, "good", None, "good", None, None, "bad"]
    assert [row["probability"] for row in rows] == [0.25, 1.0, 1.0, 0.25, 0.25, 0.25, 1.0]
    probabilities = [row["large_probabilities"] for row in rows]
    assert probabilities == [None, [0.125, 0.875], None, [0.125, 0.875], None, None, None]
    assert [row["label"] for row in rows] == [None] * 4 + ["good", None, None]
    assert [row["text"] for row in rows] == ["a text", "only text", None, None, "sent with the label", None, None]
    assert [row["task"] for row in rows] == ["films", None, None, None, "films", None, None]
    first = rows[0]
    assert (first["image"], first["features"]) == (b"a picture", [1.5, -2.0])
    assert (first["gate_score"], first["small_label"], first["route"]) == (0.5, "bad", "small")
    assert (first["caller"], first["model_version"], first["large_identity"]) == ("anonymous", "films/3", "large/7")
    assert (first["audit_share"], first["answered_at"].utcoffset().total_seconds()) == (0.25, 0)
    assert first["unit"] == unit_of(unit_digest(Content("r1")), reader.unit_key)


def test_a_window_is_read_in_batches_and_none_is_missed(
    log: DecisionLog, reader: LogReader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_ROWS", 7)
    monkeypatch.setattr(room, "MAX_BYTES", 100)
    sizes = [90, 0, 0, 200, 20, 90, 10, 0, 0, 0] * 3
    for number, size in enumerate(sizes):
        log.add_decisions([decision(f"r{number:02}", payload=Payload("x" * size) if size else None)])
    batches = list(reader.batches(0, reader.watermark()))
    assert [row["request_id"] for batch in batches for row in batch.to_pylist()] == [f"r{n:02}" for n in range(30)]
    for batch in batches:
        held = sum(len(row["text"] or "") for row in batch.to_pylist())
        assert batch.num_rows == 1 or (held <= 100 and batch.num_rows <= 7)
    assert pa.Table.from_batches(batches).schema == WINDOW


def test_an_export_holds_nothing_that_was_deleted_meanwhile(
    log: DecisionLog, reader: LogReader, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Promise: once a deletion has returned, no export that ends later has the content."""
    log.add_decisions([decision("r1", payload=Payload("secret"))])
    batches = LogReader.batches

    def deleting(reader: LogReader, after: int, upto: int) -> Iterator[pa.RecordBatch]:
        yield from list(batches(reader, after, upto))
        log.forget_request("r1")

    monkeypatch.setattr(LogReader, "batches", deleting)
    assert reader.export(tmp_path / "log.parquet", 0, reader.watermark()) == 1
    assert pq.read_table(tmp_path / "log.parquet")["text"].to_pylist() == [None]


def test_an_application_sees_its_own_decisions(log: DecisionLog, reader: LogReader, any_url: str) -> None:
    books = DecisionLog(any_url, 30.0, "books")
    for number in range(3):
        log.add_decisions([decision(f"f{number}", sequence=number + 1)])
        books.add_decisions([decision(f"b{number}", sequence=number + 1)])
    books.close()
    assert [row["request_id"] for row in whole(reader)] == ["f0", "f1", "f2"]
    with LogReader(any_url, "books") as of_books, LogReader(any_url, "nobody") as of_nobody:
        upto = of_books.watermark()
        assert upto == reader.watermark() + 1
        assert of_books.window(0, upto)["request_id"].to_pylist() == ["b0", "b1", "b2"]
        assert (of_books.gaps(0, upto), reader.gaps(0, upto)) == (0, 0)
        assert of_nobody.watermark() == 0


def test_a_watermark_passes_no_batch_that_is_being_written(any_url: str, log: DecisionLog, reader: LogReader) -> None:
    """Promise: below a watermark nothing is added, also where a slow replica has taken its numbers first."""
    log.add_decisions([decision("before")])
    before = reader.watermark()
    taken, go = threading.Event(), threading.Event()

    def slow() -> None:
        with closing(Database(any_url, 30.0)) as database, database.writing() as connection:
            share_numbers(connection)
            row = decision("slow").row(log_key(connection)) | {"application": "films", "writer": "w"}
            connection.execute(insert(connection, DECISIONS), [row])
            taken.set()
            assert go.wait(120)

    with ThreadPoolExecutor(3) as threads, closing(DecisionLog(any_url, 30.0, "films")) as other:
        writing = threads.submit(slow)
        assert taken.wait(120)
        quick = threads.submit(other.add_decisions, [decision("quick")])
        watermark = threads.submit(reader.watermark)
        wait([quick, watermark], timeout=1.0)
        go.set()
        for work in (writing, quick):
            work.result(120)
    window = reader.window(before, reader.watermark())
    numbers = dict(zip(window["request_id"].to_pylist(), window["number"].to_pylist(), strict=True))
    assert set(numbers) == {"slow", "quick"}
    assert watermark.result() == before or watermark.result() >= numbers["slow"]


def test_what_never_came_into_the_log_is_missed(log: DecisionLog, reader: LogReader, any_url: str) -> None:
    """Promise: decisions that a replica dropped are counted, before, between and behind those that came."""

    def add(writer: DecisionLog, *numbers: int) -> int:
        writer.add_decisions([decision(f"{id(writer)}-{n}", sequence=n) for n in numbers])
        return reader.watermark()

    other = DecisionLog(any_url, 30.0, "films")
    first = add(log, 3, 4, 5)  # two are missing
    second = add(log, 6, 9)  # two
    add(other, 1, 2, 3)
    third = add(log, 12, 13)  # two, which the window before could not miss
    other.close()
    assert reader.gaps(0, first) == 2
    assert reader.gaps(first, second) == 2
    assert reader.gaps(second, third) == 2
    assert reader.gaps(0, third) == 6
    assert reader.gaps(third, third + 100) == 0


ANSWERS = """
import asyncio, itertools, sys
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.writer import LogWriter


async def answer():
    log = LogWriter(FeedbackConfig(timeout_s=60.0), sys.argv[1], application="films")
    await log.open()
    for number in itertools.count():
        payload = Payload("x" * 1000)
        log.add_decisions([LoggedDecision(Origin(f"r{number:06}"), 0, "1", "small", 0.5, unit=b"u", payload=payload)])
        if number % 100 == 0:
            await log.flush()
            await log.add_feedback(f"r{number:06}", None, [Feedback(0, "good")])
            print(number, flush=True)
        await asyncio.sleep(0.0002)


asyncio.run(answer())
"""


def test_a_replica_that_is_killed_leaves_no_hole(any_url: str, log: DecisionLog, reader: LogReader) -> None:
    """Promise: whenever SIGKILL comes, what was committed or acknowledged is there, whole and in its order."""
    with subprocess.Popen([sys.executable, "-c", ANSWERS, any_url], stdout=subprocess.PIPE, text=True) as replica:
        assert replica.stdout is not None
        committed = [int(line) for line, _ in zip(replica.stdout, range(8), strict=False)][-1]
        replica.kill()
    upto = reader.watermark()
    window = reader.window(0, upto)
    assert window["request_id"].to_pylist() == [f"r{number:06}" for number in range(window.num_rows)]
    assert window.num_rows > committed == 700
    assert {*window["text"].to_pylist()} == {"x" * 1000}
    assert window["label"].to_pylist()[: committed + 1 : 100] == ["good"] * 8
    assert reader.gaps(0, upto) == 0
    log.add_decisions([decision("after it")])
    assert reader.window(upto, reader.watermark())["request_id"].to_pylist() == ["after it"]


def test_a_batch_that_is_sent_again_is_no_gap(log: DecisionLog, reader: LogReader) -> None:
    """Promise: what comes twice is there once, and the numbers that PostgreSQL spent on it are not missed."""
    batch = [decision(f"r{n}", sequence=n) for n in (1, 2, 3)]
    for _ in range(3):
        log.add_decisions(batch)
    log.add_decisions([decision("r4", sequence=4)])
    upto = reader.watermark()
    assert reader.window(0, upto)["request_id"].to_pylist() == ["r1", "r2", "r3", "r4"]
    assert reader.gaps(0, upto) == 0


def test_a_log_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no log"):
        LogReader(f"sqlite:///{tmp_path}/feedback.db", "films")
    assert list(tmp_path.iterdir()) == []


def test_an_alarm_is_known_by_the_last_decision_before_it(log: DecisionLog, reader: LogReader) -> None:
    """Promise: a window may begin after what raised the alarm."""
    log.add_decisions([decision("r1"), decision("r2")])
    before = reader.watermark()
    assert reader.alarm("films/3") is None
    assert log.refute("films/3")
    log.add_decisions([decision("r3", answered_at=decision("r3").answered_at + timedelta(minutes=1))])
    assert reader.alarm("films/3") == before
    assert reader.alarm("films/4") is None


def test_a_decision_without_a_unit_is_refused(log: DecisionLog, reader: LogReader) -> None:
    log.add_decisions([decision("r1"), replace(decision("r2"), unit=None)])
    with pytest.raises(DataError, match="1 decisions without a unit"):
        whole(reader)
