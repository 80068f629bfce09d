"""Promise: on a disk that is full, answers go on; what waits is stored once there is room, and the rest is counted."""

from __future__ import annotations

import asyncio

import pytest

from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log import writer as room
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.tables import DECISIONS, FEEDBACK
from pipelines.serve.log.writer import LogWriter
from tests.full_disk import Disk


async def test_a_disk_that_fills_while_it_serves(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REST_S", 0.01)
    monkeypatch.setattr(room, "MAX_QUEUED", 40)
    monkeypatch.setattr("tempfile.tempdir", str(disk.folder))  # what waits on disk waits on the same one
    dropped = 0

    def count(kind: str, number: int) -> None:
        nonlocal dropped
        dropped += number

    url = f"sqlite:///{disk.folder}/log.db"
    writer = LogWriter(FeedbackConfig(timeout_s=5.0), url, count, "films")
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
    log = DecisionLog(url, 5.0, "films")
    assert len(log.read(DECISIONS)) == 100
    assert [row["label"] for row in log.read(FEEDBACK)] == ["good"]
    log.close()
