from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Coroutine
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from pipelines.serve.cascade.breaker import BreakerConfig
from pipelines.serve.log.feedback import ConflictError, Feedback, FeedbackConfig, FeedbackLog, LogUnavailableError
from pipelines.serve.log.store import Store
from pipelines.serve.log.tables import FEEDBACK

LABELS = [Feedback(0, "good")]


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/feedback.db"


def store(url: str, timeout_s: float = 0.05, rest_s: float = 60.0) -> Store:
    return Store(FeedbackConfig(timeout_s=timeout_s, breaker=BreakerConfig(failures=1, rest_s=rest_s)), url)


def stored(url: str) -> list[str]:
    return [row["request_id"] for row in FeedbackLog(url, 1.0).read(FEEDBACK)]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(coroutine, 20))


def test_what_it_returns_from_is_stored(url: str) -> None:
    async def write() -> None:
        writing = store(url)
        await writing.open()
        await asyncio.gather(*(writing.add_feedback(f"r{number}", LABELS) for number in range(5)))

    run(write())
    assert stored(url) == [f"r{number}" for number in range(5)]


def test_while_the_database_is_locked_one_write_waits_and_the_others_are_told_at_once(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a locked database makes one write wait, and no request after it."""
    attempts = []
    add = FeedbackLog.add_feedback

    def counted(self: FeedbackLog, request_id: str, labels: list[Feedback]) -> None:
        attempts.append(request_id)
        add(self, request_id, labels)

    monkeypatch.setattr(FeedbackLog, "add_feedback", counted)

    async def write() -> None:
        writing = store(url)
        await writing.open()
        with closing(sqlite3.connect(tmp_path / "feedback.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            together = [writing.add_feedback(f"r{number}", LABELS) for number in range(20)]
            outcomes = await asyncio.gather(*together, return_exceptions=True)
            assert {type(outcome) for outcome in outcomes} == {LogUnavailableError}
            with pytest.raises(LogUnavailableError):
                await writing.add_feedback("later", LABELS)

    run(write())
    assert attempts == ["r0"]


def test_it_recovers(url: str, tmp_path: Path) -> None:
    async def write() -> None:
        writing = store(f"sqlite:///{tmp_path}/later/feedback.db", rest_s=0.01)
        await writing.open()
        (tmp_path / "later").mkdir()
        await asyncio.sleep(0.02)
        await writing.add_feedback("r1", LABELS)

    run(write())


def test_a_label_that_differs_says_nothing_against_the_database(url: str) -> None:
    async def write() -> None:
        writing = store(url)
        await writing.add_feedback("r1", LABELS)
        with pytest.raises(ConflictError):
            await writing.add_feedback("r1", [Feedback(0, "bad")])
        await writing.add_feedback("r2", LABELS)

    run(write())
    assert stored(url) == ["r1", "r2"]


def test_a_client_that_leaves_takes_nothing_back(url: str) -> None:
    async def leave() -> None:
        writing = store(url, timeout_s=1.0)
        await writing.open()
        leaving = asyncio.ensure_future(writing.add_feedback("r1", LABELS))
        await asyncio.sleep(0)
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        await writing.add_feedback("r2", LABELS)

    run(leave())
    assert stored(url) == ["r1", "r2"]
