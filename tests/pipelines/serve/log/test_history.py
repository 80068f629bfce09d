"""What every version has answered, saved and lost, read from the log alone."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import pytest

from pipelines.serve.cascade.cards import Cards
from pipelines.serve.config import FeedbackConfig, ServeConfig
from pipelines.serve.errors import LogAwayError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin
from pipelines.serve.log.labels import LabelLog
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.schemas import ReplicaTraffic

START = datetime(2026, 3, 1, tzinfo=UTC)


def decision(
    number: int, version: str, route: Literal["small", "large", "small_degraded"] = "small", *, drawn: bool = False
) -> LoggedDecision:
    at = START + timedelta(days=number)
    return LoggedDecision(Origin(f"r{number}"), 0, version, route, 0.5, drawn, "good", answered_at=at)


@pytest.fixture
def url(any_url: str) -> str:
    """Two versions: the first kept two of three, of which one was audited and labelled, the second kept none of two."""
    url = any_url
    log = DecisionLog(url, 30.0, "films")
    log.add_decisions([decision(1, "films/1", drawn=True), decision(2, "films/1"), decision(3, "films/1", "large")])
    log.add_decisions([decision(4, "films/2", "large"), decision(5, "films/2", "small_degraded")])
    log.finish_audits("r1", {0: "bad"})
    log.add_feedback("r1", None, [Feedback(0, "bad")])
    log.refute("films/1")
    log.close()
    other = DecisionLog(url, 30.0, "books")
    other.add_decisions([decision(6, "books/1")])
    other.close()
    labels = LabelLog(url, 30.0, "films")
    labels.store({"r4/0": "bad", "r5/0": None}, {"r4/0": 1.0, "r5/0": 1.0})
    labels.close()
    return url


@pytest.fixture
def writer(url: str) -> Iterator[LogWriter]:
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), url, application="films")
    yield writer
    writer.close()


def cards(log: LogWriter | None, **options: Any) -> Cards:
    nothing: Any = None
    return Cards(nothing, ServeConfig(), nothing, log, ReplicaTraffic(), **options)


async def test_versions_have_dates_counts_alarm_and_bounds(
    writer: LogWriter,
) -> None:
    """Promise: each version has its dates counts labels alarm and bounds where it was audited."""
    first, second = (await cards(writer).loop()).versions
    assert (first.version, second.version) == ("films/1", "films/2")
    assert (first.since, first.until) == (START + timedelta(days=1), START + timedelta(days=3))
    assert (first.num_items, first.num_escalated, first.num_audited) == (3, 1, 1)
    assert (second.num_items, second.num_escalated, second.num_audited) == (2, 2, 0)
    assert (first.num_labels, second.num_labels) == (1, 1)  # a skipped item is no label
    assert first.refuted_at is not None
    assert second.refuted_at is None
    assert first.disagreement is not None
    assert 0 <= first.disagreement[0] <= 1 / 3 <= first.disagreement[1] <= 1
    assert second.disagreement is None


async def test_history_without_log_is_empty_and_a_lost_log_an_error(
    tmp_path: Path,
) -> None:
    """Promise: without a log there is nothing to tell and one that is gone is an error."""
    assert (await cards(None).loop()).versions == []
    writer = LogWriter(FeedbackConfig(timeout_s=30.0), f"sqlite:///{tmp_path / 'gone.db'}", application="films")
    assert (await cards(writer).loop()).versions == []
    (tmp_path / "gone.db").unlink()
    with pytest.raises(LogAwayError, match="cannot be read"):
        await cards(writer).loop()
    writer.close()
