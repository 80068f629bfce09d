"""What the log keeps of requests, and whose labels it takes."""

import datetime
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.answers import Route
from pipelines.serve.log.decisions import DecisionLog, Tally
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload, RejectedError
from pipelines.serve.log.tables import DECISIONS, FEEDBACK, PAYLOADS


def answer(log: DecisionLog, request_id: str, num_items: int = 1, caller: str | None = None) -> None:
    origin = Origin(request_id, caller)
    log.add_decisions([LoggedDecision(origin, item, "1", "small") for item in range(num_items)])


def labels(log: DecisionLog) -> list[tuple[Any, ...]]:
    return [(row["request_id"], row["item"], row["label"], row["text"]) for row in log.read(FEEDBACK)]


def test_what_is_sent_twice_is_stored_once(log: DecisionLog) -> None:
    for _ in range(2):
        answer(log, "r1", num_items=2)
    log.add_feedback("r1", None, [Feedback(0, "good", "first")])
    log.add_feedback("r1", None, [Feedback(0, "good", "again"), Feedback(1, "bad")])
    assert labels(log) == [("r1", 0, "good", "first"), ("r1", 1, "bad", None)]
    assert len(log.read(DECISIONS)) == 2


def test_conflicting_label_is_refused_and_nothing_stored(log: DecisionLog) -> None:
    """Promise: another label for the same item is refused and nothing of it is stored."""
    answer(log, "r1", num_items=2)
    log.add_feedback("r1", None, [Feedback(1, "good")])
    with pytest.raises(RejectedError, match="item 1 has another label"):
        log.add_feedback("r1", None, [Feedback(0, "good"), Feedback(1, "bad")])
    assert labels(log) == [("r1", 1, "good", None)]


def test_labels_of_what_was_never_answered_are_refused(log: DecisionLog, any_url: str) -> None:
    """Promise: only an item that the service has answered can have a label, and not one label of the others counts."""
    answer(log, "r1")
    other = DecisionLog(any_url, 30.0, "books")
    with other, pytest.raises(RejectedError):  # which knows other labels
        other.add_feedback("r1", None, [Feedback(0, "good")])
    for request_id, items in (("made up", [0]), ("r1", [0, 1]), ("r1", [-1])):
        with pytest.raises(RejectedError):
            log.add_feedback(request_id, None, [Feedback(item, "good") for item in items])
    assert labels(log) == []


def test_stranger_cannot_label_or_block_items_of_another(log: DecisionLog) -> None:
    """Promise: whoever tries first, the owner's label is stored and a stranger's never is."""
    answer(log, "of ann", caller="ann")
    answer(log, "of nobody")
    for request_id, stranger in (("of ann", "bob"), ("of ann", None), ("of nobody", "ann"), ("of ann", "anonymous")):
        with pytest.raises(RejectedError):
            log.add_feedback(request_id, stranger, [Feedback(0, "bad")])
    log.add_feedback("of ann", "ann", [Feedback(0, "good")])
    log.add_feedback("of nobody", None, [Feedback(0, "good")])
    assert labels(log) == [("of ann", 0, "good", None), ("of nobody", 0, "good", None)]


def test_callers_can_be_distinguished_and_not_be_named(log: DecisionLog, tmp_path: Path) -> None:
    other = DecisionLog(f"sqlite:///{tmp_path}/other.db", 30.0)
    for each in (log, other):
        for number, caller in enumerate(("ann", "ann", "bob", None)):
            answer(each, f"r{number}", caller=caller)
        each.add_feedback("r0", "ann", [Feedback(0, "good")])
    callers, elsewhere = ([row["caller"] for row in each.read(DECISIONS)] for each in (log, other))
    assert callers[0] == callers[1] != callers[2]
    assert callers[3] == elsewhere[3] == "anonymous"
    assert not {"ann", "bob"} & {*callers}
    assert not {*callers[:3]} & {*elsewhere[:3]}  # what is in two logs cannot be joined
    assert log.read(FEEDBACK)[0]["caller"] == callers[0]


def outcomes(url: str, num_labels: int, give: Callable[[DecisionLog, int], None]) -> Counter[str]:
    """What becomes of labels that are given to eight replicas at once."""
    replicas = [DecisionLog(url, 30.0, "films") for _ in range(8)]

    def outcome(number: int) -> str:
        try:
            give(replicas[number % 8], number)
        except RejectedError as rejected:
            return type(rejected).__name__
        return "stored"

    with ThreadPoolExecutor(8) as pool:
        counts = Counter(pool.map(outcome, range(num_labels)))
    for replica in replicas:
        replica.close()
    return counts


def test_replicas_share_the_limit_of_new_labels(any_url: str, log: DecisionLog) -> None:
    """Promise: a caller gives `max_new` different new labels a day, however many replicas it asks at once."""
    for number in range(24):
        answer(log, f"r{number}", caller="liar")

    def flood(replica: DecisionLog, number: int) -> None:
        replica.add_feedback(f"r{number}", "liar", [Feedback(0, f"made up {number}", new=True)], 3)

    assert outcomes(any_url, 24, flood) == {"stored": 3, "TooManyLabelsError": 21}


def test_contradicting_labels_leave_one(any_url: str, log: DecisionLog) -> None:
    """Promise: of labels that contradict each other, given to several replicas at once, the first is kept."""
    for number in range(20):
        answer(log, f"r{number}", caller="ann")

    def label(replica: DecisionLog, number: int) -> None:
        replica.add_feedback(f"r{number // 4}", "ann", [Feedback(0, f"label {number % 4}")])

    assert outcomes(any_url, 80, label) == {"stored": 20, "LabelConflictError": 60}


def test_tallies_count_every_item_once(log: DecisionLog) -> None:
    """Promise: the tallies of a version count every item once by what is known of it."""
    routes: list[tuple[Route, bool]] = [("small", True)] * 5 + [("small", False), ("large", False)]
    log.add_decisions(
        [LoggedDecision(Origin("r1"), i, "1", route, 0.5, drawn, "bad") for i, (route, drawn) in enumerate(routes)]
    )
    log.add_decisions([LoggedDecision(Origin("r2"), 0, "2", "small", 0.5, True, "bad")])
    log.add_decisions([LoggedDecision(Origin("r3"), 0, "1", "small_degraded", 0.5)])
    log.finish_audits("r1", {0: "good", 1: "good", 2: "bad", 3: None})
    log.add_feedback("r1", None, [Feedback(0, "good"), Feedback(2, "good"), Feedback(5, "good"), Feedback(6, "good")])
    found = set(log.tallies("1"))
    assert found == {
        Tally(1, 0.5, "small", "answered", False, False, True),
        Tally(1, 0.5, "small", "answered", False, None, None),
        Tally(1, 0.5, "small", "answered", True, False, False),
        Tally(1, 0.5, "small", "lost", None, None, None),
        Tally(1, 0.5, "small", "drawn", None, None, None),
        Tally(1, 0.5, "small"),
        Tally(1, 0.5, "large"),
        Tally(1, 0.5, "small_degraded"),
    }
    assert log.tallies("3") == []


def test_applications_that_share_a_log_delete_what_is_their_own(any_url: str) -> None:
    """Promise: the oldest go first, by age and by size, some at a time; decisions and other applications stay."""
    now = datetime.datetime.now(datetime.UTC)
    films, books = (DecisionLog(any_url, 30.0, application) for application in ("films", "books"))
    for name, log in (("f", films), ("b", books)):
        ages = [3, 2, 1, 0]
        log.add_decisions(
            [
                LoggedDecision(
                    Origin(f"{name}{days}"), 0, "1", "small", payload=Payload("x" * 100, b"y" * 50, b"z" * 50),
                    answered_at=now - datetime.timedelta(days=days, hours=1),
                )
                for days in ages
            ]
        )  # fmt: skip

    def left() -> list[str]:
        return [row["request_id"] for row in films.read(PAYLOADS)]

    assert (films.expire(None, None), films.expire(9.0, 800)) == (0, 0)
    assert (films.expire(3.0, None), left()) == (1, ["b0", "b1", "b2", "b3", "f0", "f1", "f2"])
    assert (films.expire(None, 599), left()) == (1, ["b0", "b1", "b2", "b3", "f0", "f1"])
    assert (films.expire(1.0, 0), left()) == (2, ["b0", "b1", "b2", "b3"])
    assert len(films.read(DECISIONS)) == 8
    for log in (films, books):
        log.close()


def test_what_a_label_is_called_stops_no_batch(log: DecisionLog) -> None:
    """Promise: a name that a column cannot hold does not keep the batch that it is in from the log."""
    long, payload = "x" * 300, Payload("\x00")
    odd = LoggedDecision(Origin("r1"), 0, "1", "small", 1.0, True, long, task="a\x00b", payload=payload)
    log.add_decisions([odd, LoggedDecision(Origin("r2"), 0, "1", "small")])
    assert [row["small_label"] for row in log.read(DECISIONS)] == [long[:200], None]


def test_an_alarm_is_raised_once_and_stays(log: DecisionLog) -> None:
    assert not log.is_refuted("1")
    assert [log.refute("1") for _ in range(2)] == [True, False]
    assert (log.is_refuted("1"), log.is_refuted("2")) == (True, False)
