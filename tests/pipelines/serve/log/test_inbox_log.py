"""The inbox in the log's tables, in either database: what is answered once, and what is refused whole."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from pipelines.serve.log.database import Database
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import LoggedDecision, Origin, Payload, RejectedError
from pipelines.serve.log.inbox import AskedFor, draw_items, open_inbox
from pipelines.serve.log.tables import INBOX


@pytest.fixture
def log(any_url: str, tmp_path: Path) -> Iterator[DecisionLog]:
    """Three items, r2 to be asked first."""
    log = DecisionLog(any_url, 5.0, "films")
    log.add_decisions(
        [
            LoggedDecision(Origin(f"r{n}"), 0, "films/1", "small", 0.5, True, "good", payload=Payload(f"text {n}"))
            for n in range(3)
        ]
    )
    log.finish_audits("r2", {0: "bad"})
    shared = {"item": 0, "probability": 1.0, "small_label": "good"}
    with closing(Database(any_url, 5.0)) as database, database.writing() as connection:
        open_inbox(connection, "films", AskedFor("a", "films/2", ("good", "bad")))
        rows = [shared | {"request_id": f"r{n}", "position": 2 - n} for n in range(3)]
        draw_items(connection, "films", "a", rows)
    yield log
    log.close()


def test_items_come_in_their_order_with_what_both_sides_say(log: DecisionLog) -> None:
    view = log.inbox(2)
    assert (view.version, view.labels) == ("films/2", ("good", "bad"))
    assert [(each.id, each.text) for each in view.items] == [("r2/0", "text 2"), ("r1/0", "text 1")]
    assert (view.items[0].small_label, view.items[0].large_label) == ("good", "bad")
    assert view.items[1].large_label is None
    assert view.items[0].answered_at.tzinfo is not None
    assert (view.standing.num_open, view.standing.num_labelled) == (3, 0)


def test_the_first_answer_stays_and_a_bad_one_among_others_stores_nothing(log: DecisionLog) -> None:
    log.answer_inbox({"r2/0": "bad", "r1/0": None}, again=False)
    log.answer_inbox({"r2/0": "bad", "r1/0": None}, again=False)
    for bad, label, status in (("r2/0", "good", 409), ("r1/0", "good", 409), ("r9/0", "good", 404), ("r0/0", "x", 422)):
        with pytest.raises(RejectedError) as rejected:
            log.answer_inbox({"r0/0": "good", bad: label}, again=False)
        assert rejected.value.status == status
    view = log.inbox(0)
    assert (view.standing.num_open, view.standing.num_labelled, view.standing.num_skipped) == (1, 1, 1)
    log.answer_inbox({"r2/0": None, "r1/0": "good"}, again=True)
    assert [(row["state"], row["label"]) for row in log.read(INBOX)] == [
        ("drawn", None),
        ("labelled", "good"),
        ("skipped", None),
    ]


def test_what_is_forgotten_is_asked_for_no_more(log: DecisionLog) -> None:
    log.forget_request("r2")
    view = log.inbox(5)
    assert [each.id for each in view.items] == ["r1/0", "r0/0"]
    with pytest.raises(RejectedError):
        log.answer_inbox({"r2/0": "bad"}, again=False)
