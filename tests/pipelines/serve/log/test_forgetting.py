"""Promise: what is forgotten is on no disk of ours, and its decision still counts as what it was."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, create_engine, func, inspect, select, text

from kcm.bundle.answers import Route
from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest
from pipelines.serve.log import decisions as room
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload, RejectedError
from pipelines.serve.log.monitor import bounds
from pipelines.serve.log.tables import DECISIONS, PAYLOADS
from pipelines.serve.log.window import LogReader

SECRET = "the private text of ann"


def decision(request_id: str, item: int, route: Route, caller: str, **values: Any) -> LoggedDecision:
    known = {"audit_share": 0.5, "small_label": SECRET, "gate_score": 0.5, "unit": unit_digest(Content(SECRET))}
    known["payload"] = Payload(SECRET, SECRET.encode(), SECRET.encode().ljust(24))
    return LoggedDecision(Origin(request_id, caller, SECRET), item, "films/3", route, **(known | values))


def answered(log: DecisionLog, request_id: str, caller: str) -> None:
    """A request of an audited, an escalated and a kept item, each with all that may be known of it."""
    log.add_decisions(
        [
            decision(request_id, 0, "small", caller, drawn=True),
            decision(request_id, 1, "large", caller, large_label=SECRET, large_probabilities_C=np.ones(2)),
            decision(request_id, 2, "small", caller),
        ]
    )
    log.finish_audits(request_id, {0: SECRET}, {0: np.ones(2)})
    log.add_feedback(request_id, caller, [Feedback(item, SECRET, SECRET) for item in range(3)])


def dump(url: str) -> str:
    """All that any table holds."""
    engine = create_engine(url)
    with engine.connect() as connection:
        names = inspect(connection).get_table_names()
        held = [str(connection.execute(text(f"SELECT * FROM {name}")).all()) for name in names]
    engine.dispose()
    return "\n".join(held)


def test_nothing_of_a_caller_is_left_and_the_others_keep_all(any_url: str, log: DecisionLog) -> None:
    answered(log, "r1", "bob")
    with LogReader(any_url, "films") as reader:
        of_bob = reader.window(0, reader.watermark()).to_pylist()
        after = reader.watermark()
        answered(log, "r2", "ann")
        of_bob = reader.window(0, after).to_pylist()
        assert log.forget_caller("ann").num_items == 3
        assert reader.window(0, after).to_pylist() == of_bob
        tombs = reader.window(after, reader.watermark()).to_pylist()
        units = reader.forgotten()
    kept = [(row["route"], row["probability"], row["audit_share"], row["state"], row["unit"]) for row in tombs]
    unit = of_bob[0]["unit"]
    assert kept == [
        ("small", 0.5, 0.5, "lost", unit),
        ("large", 1.0, 0.5, "lost", unit),
        ("small", 0.5, 0.5, None, unit),
    ]
    said = ["small_label", "gate_score", "large_label", "large_probabilities", "label"]
    assert {row[name] for row in tombs for name in [*said, "text", "image", "features"]} == {None}
    assert units == {unit}
    assert [row["state"] for row in log.read(DECISIONS) if row["state"]] == ["answered", "answered"]
    log.forget_caller("bob")
    assert SECRET not in dump(any_url)


def test_one_item_of_a_request_can_be_forgotten(log: DecisionLog) -> None:
    answered(log, "r1", "ann")
    assert log.forget_request("r1", 1).num_items == 1
    assert [(row["item"], row["text"]) for row in log.read(PAYLOADS)] == [(0, SECRET), (1, None), (2, SECRET)]
    assert log.forget_request("r1").num_items == 2
    assert log.forget_request("r1").num_items == 0
    assert all(row["forgotten_at"] for row in log.read(DECISIONS))


def test_an_application_forgets_nothing_of_another(any_url: str, log: DecisionLog) -> None:
    answered(log, "r1", "ann")
    assert DecisionLog(any_url, 30.0, "books").forget_caller("ann").num_items == 0
    assert DecisionLog(any_url, 30.0, "books").forget_request("r1").num_items == 0
    assert SECRET in dump(any_url)


def test_what_comes_late_of_a_forgotten_request_is_not_stored(any_url: str, log: DecisionLog) -> None:
    """Promise: an audit under way, a batch that is sent again and a label that comes later bring nothing back."""
    batch = [decision("r1", 0, "small", "ann", drawn=True)]
    log.add_decisions(batch)
    log.forget_caller("ann")
    log.add_decisions(batch)
    log.finish_audits("r1", {0: SECRET}, {0: np.ones(2)})
    with pytest.raises(RejectedError):
        log.add_feedback("r1", "ann", [Feedback(0, SECRET)])
    assert SECRET not in dump(any_url)


def test_forgetting_many_items_resumes_after_a_stop(
    any_url: str, log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: many items are forgotten in steps and who is stopped goes on."""
    monkeypatch.setattr(room, "STEP", 2)
    for number in range(3):
        answered(log, f"r{number}", "ann")
    writing, num_forgotten = log.writing, []

    @contextmanager
    def stopped() -> Iterator[Connection]:
        with writing() as connection:
            yield connection
            num_forgotten.append(connection.scalar(select(func.count(DECISIONS.c.forgotten_at))))
            if len(num_forgotten) == 3:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(log, "writing", stopped)
        with pytest.raises(KeyboardInterrupt):
            log.forget_caller("ann")
    assert num_forgotten == [2, 4, 6]
    assert (
        sum(row["forgotten_at"] is not None for row in log.read(DECISIONS)) == 4
    )  # the step that was stopped is undone as a whole
    assert log.forget_caller("ann").num_items == 5
    assert SECRET not in dump(any_url)


def test_the_file_itself_holds_nothing_of_it(path: Path, url: str) -> None:
    """Promise: no free page and no write-ahead log of SQLite keeps what was forgotten, while others are connected."""
    log = DecisionLog(url, 30.0, "films")
    answered(log, "r1", "ann")
    files = [path, path.with_name(path.name + "-wal")]

    def held() -> bool:
        return any(SECRET.encode() in file.read_bytes() for file in files if file.exists())

    with closing(sqlite3.connect(path)) as other:
        other.execute("SELECT * FROM payloads").fetchall()
        answered(log, "r2", "ann")
        assert held()
        log.forget_caller("ann")
        assert not held()
    log.close()


def test_forgotten_disagreement_widens_the_bounds(log: DecisionLog) -> None:
    """Promise: a forgotten disagreement widens the bounds and is not taken for one."""
    names = {"audit_share": 1.0, "drawn": True, "small_label": "bad"}
    log.add_decisions([decision("r1", item, "small", "ann", **names) for item in range(50)])
    log.finish_audits("r1", dict.fromkeys(range(50), "bad"))
    before = bounds(log.tallies("films/3"), None)
    log.forget_caller("ann")
    after = bounds(log.tallies("films/3"), None)
    assert after.disagreement[0] == before.disagreement[0] == 0
    assert after.disagreement[1] > before.disagreement[1]
