"""Labels that people were asked for, in either database, beside those that callers volunteered."""

from collections.abc import Iterator

import pytest

from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, RejectedError
from pipelines.serve.log.labels import LabelLog
from pipelines.serve.log.window import LogReader


@pytest.fixture
def log(any_url: str) -> Iterator[DecisionLog]:
    """A decision for each of two callers, twice."""
    log = DecisionLog(any_url, 30.0, "films", max_share=0.4)
    origins = [Origin(f"r{n}", ("ann", "bob")[n % 2]) for n in range(4)]
    log.add_decisions([LoggedDecision(origin, 0, "films/1", "small", 0.5, unit=b"u") for origin in origins])
    yield log
    log.close()


@pytest.fixture
def labels(any_url: str) -> Iterator[LabelLog]:
    labels = LabelLog(any_url, 30.0, "films")
    yield labels
    labels.close()


def said(url: str, max_share: float = 1.0) -> list[tuple[str | None, float | None]]:
    """The labels of the window and their probabilities."""
    with LogReader(url, "films") as reader:
        rows = reader.window(0, reader.watermark(), max_share).to_pylist()
    return [(row["label"], row["label_probability"]) for row in rows]


def test_last_label_counts_even_before_a_volunteered_one(any_url: str, log: DecisionLog, labels: LabelLog) -> None:
    """Promise: what is said last stands also before what a caller volunteered."""
    log.add_feedback("r0", "ann", [Feedback(0, "good", text="what she asked")])
    probabilities = {f"r{n}/0": 0.5 for n in range(4)}
    labels.store({"r0/0": "bad", "r1/0": "bad", "r2/0": None}, probabilities)
    labels.store({"r1/0": None, "r2/0": "good"}, probabilities)
    assert labels.labels() == {"r0/0": "bad", "r1/0": None, "r2/0": "good"}
    assert said(any_url) == [("bad", 0.5), (None, None), ("good", 0.5), (None, None)]
    with pytest.raises(RejectedError, match="another label already"):
        log.add_feedback("r0", "ann", [Feedback(0, "good")])
    with LogReader(any_url, "films") as reader:
        assert reader.stats()["labels"] == 2
        assert reader.window(0, 1)["text"].to_pylist() == ["what she asked"]
    other = LabelLog(any_url, 30.0, "songs")
    assert other.labels() == {}
    other.close()


def test_no_share_of_callers_limits_them(any_url: str, log: DecisionLog, labels: LabelLog) -> None:
    log.add_feedback("r0", "ann", [Feedback(0, "good")])
    log.add_feedback("r1", "bob", [Feedback(0, "good")])
    labels.store({"r2/0": "bad", "r3/0": "bad"}, {"r2/0": 0.5, "r3/0": 0.5})
    # Two callers are fewer than 1 / 0.4: neither counts.
    assert [label for label, _ in said(any_url, max_share=0.4)] == [None, None, "bad", "bad"]


def test_what_is_forgotten_has_no_label_any_more(any_url: str, log: DecisionLog, labels: LabelLog) -> None:
    labels.store({"r0/0": "bad", "r1/0": "bad"}, {"r0/0": 0.5, "r1/0": 0.5})
    log.forget_caller("ann")
    assert labels.labels() == {"r1/0": "bad"}
    assert labels.forgotten() == {"r0/0", "r2/0"}
