"""Promise: on a disk that is full, answers go on; what waits is stored once there is room, and the rest is counted."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log import writer as room
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.tables import DECISIONS, FEEDBACK
from pipelines.serve.log.writer import LogWriter


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no disk can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_fills_while_it_serves(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "REST_S", 0.01)
    monkeypatch.setattr(room, "MAX_QUEUED", 40)
    monkeypatch.setattr("tempfile.tempdir", str(disk))  # what waits on disk waits on the same one
    dropped = 0

    def count(kind: str, number: int) -> None:
        nonlocal dropped
        dropped += number

    async def serve() -> None:
        url = f"sqlite:///{disk}/log.db"
        writer = LogWriter(FeedbackConfig(timeout_s=5.0), url, count, "films")
        payload = Payload("x" * 20_000)

        def answer(first: int) -> None:
            numbers = range(first, first + 60)
            decisions = [LoggedDecision(Origin(f"r{n}"), 0, "1", "small", payload=payload) for n in numbers]
            writer.add_decisions(decisions)

        answer(0)
        await writer.flush()
        (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free))
        answer(60)
        with pytest.raises(LogUnavailableError):
            await writer.flush()
        await asyncio.sleep(0.02)
        with pytest.raises(LogUnavailableError):
            await writer.add_feedback("r0", None, [Feedback(0, "good")])
        assert (writer.available, dropped) == (False, 20)
        (disk / "filler").unlink()
        await asyncio.sleep(0.02)
        await writer.flush()
        await writer.add_feedback("r0", None, [Feedback(0, "good")])
        assert writer.available
        writer.close()
        log = DecisionLog(url, 5.0, "films")
        assert len(log.read(DECISIONS)) == 100
        assert [row["label"] for row in log.read(FEEDBACK)] == ["good"]
        log.close()

    asyncio.run(asyncio.wait_for(serve(), 60))
