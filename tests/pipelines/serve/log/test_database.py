"""How the log's tables are made, grow, and are written to disk."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, create_engine, inspect, text

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.database import Database, LogUnavailableError, upgrade
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin
from pipelines.serve.log.tables import AUDITS, DECISIONS, FEEDBACK, SCHEMA

VERSION = {"version_table": "kcm_log_version"}

# What was in a database before Alembic held its tables, word for word; DATETIME is TIMESTAMP WITH TIME ZONE elsewhere.
BASELINE = """
CREATE TABLE IF NOT EXISTS feedback (
    request_id VARCHAR(128) NOT NULL, item INTEGER NOT NULL, label VARCHAR(200) NOT NULL, text TEXT, task VARCHAR(200),
    received_at DATETIME NOT NULL, PRIMARY KEY (request_id, item));
CREATE TABLE IF NOT EXISTS escalated (
    request_id VARCHAR(128) NOT NULL, item INTEGER NOT NULL, model_version VARCHAR(200) NOT NULL,
    route VARCHAR(20) NOT NULL, label VARCHAR(200) NOT NULL, probabilities JSON NOT NULL, confidence FLOAT NOT NULL,
    gate_score FLOAT NOT NULL, cost_s FLOAT NOT NULL, text TEXT, task VARCHAR(200), answered_at DATETIME NOT NULL,
    PRIMARY KEY (request_id, item));
CREATE TABLE IF NOT EXISTS audits (
    request_id VARCHAR(128) NOT NULL, item INTEGER NOT NULL, model_version VARCHAR(200) NOT NULL,
    probability FLOAT NOT NULL, small_label VARCHAR(200) NOT NULL, large_label VARCHAR(200),
    audited_at DATETIME NOT NULL, PRIMARY KEY (request_id, item));
INSERT INTO feedback VALUES ('r1', 0, 'good', 'A film', 'movies', '2026-01-02 03:04:05.000006');
INSERT INTO escalated VALUES ('r1', 1, 'films/3', 'large', 'bad', '{"bad": 1.0}', .6, .4, .2, NULL, NULL,
    '2026-01-02 03:04:05.000006');
INSERT INTO audits VALUES ('r1', 0, 'films/3', .5, 'good', 'bad', '2026-01-02 03:04:05.000006');
INSERT INTO audits VALUES ('r2', 0, 'films/3', .5, 'good', NULL, '2026-01-02 03:04:05.000006');
"""


@pytest.fixture
def engine(any_url: str) -> Iterator[Engine]:
    """The same database beside the log's own connections."""
    engine = create_engine(any_url)
    yield engine
    engine.dispose()


def fill_baseline(engine: Engine) -> None:
    kind = "DATETIME" if engine.dialect.name == "sqlite" else "TIMESTAMP WITH TIME ZONE"
    with engine.begin() as connection:
        for statement in BASELINE.replace("DATETIME", kind).split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)


def test_the_migrations_end_in_the_tables_as_they_are_stated(any_url: str, engine: Engine) -> None:
    Database(any_url, 5.0).open()
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection, opts=VERSION), SCHEMA) == []


def test_a_database_from_before_alembic_grows_and_loses_nothing(any_url: str, engine: Engine) -> None:
    """Promise: a log that an older version wrote is taken over with every row, and written to."""
    fill_baseline(engine)
    before = {}
    with engine.connect() as connection:
        for name in ("feedback", "escalated", "audits"):
            before[name] = connection.execute(text(f"SELECT * FROM {name} ORDER BY request_id, item")).all()
    log = DecisionLog(any_url, 5.0)
    log.open()
    with engine.connect() as connection:
        for name, rows in before.items():
            grown = connection.execute(text(f"SELECT * FROM {name} ORDER BY request_id, item")).all()
            assert [row[: len(rows[0])] for row in grown] == rows
        assert compare_metadata(MigrationContext.configure(connection, opts=VERSION), SCHEMA) == []
    assert [row["state"] for row in log.read(AUDITS)] == ["answered", "lost"]
    log.add_decisions([LoggedDecision(Origin("r3"), 0, "films/4", "small")])
    log.add_feedback("r3", None, [Feedback(0, "good")])
    assert [row["request_id"] for row in log.read(FEEDBACK)] == ["r1", "r3"]
    log.close()


# What the release before the loop wrote, into tables of its revision.
OF_0002 = """
INSERT INTO decisions (request_id, item, caller, model_version, route, audit_share, answered_at)
    VALUES ('r1', 0, 'abc', 'films/3', 'small', .5, '2026-01-02 03:04:05.000006');
INSERT INTO audits (request_id, item, model_version, probability, small_label, large_label, audited_at, state)
    VALUES ('r1', 0, 'films/3', .5, 'good', 'bad', '2026-01-02 03:04:05.000006', 'answered');
INSERT INTO escalated
    VALUES ('r1', 1, 'films/3', 'large', 'bad', '{"bad": 1.0}', .6, .4, .2, 'A film', NULL,
    '2026-01-02 03:04:05.000006');
INSERT INTO feedback VALUES ('r1', 0, 'good', NULL, NULL, '2026-01-02 03:04:05.000006', 'abc');
"""


def test_a_log_from_before_the_loop_grows_and_loses_nothing(any_url: str, engine: Engine) -> None:
    """Promise: its rows stay as they were, without what nobody wrote down then."""
    with engine.begin() as connection:
        upgrade(connection, "0002")
        for statement in OF_0002.split(";")[:-1]:
            connection.exec_driver_sql(statement)
    before = {}
    with engine.connect() as connection:
        for name in ("decisions", "audits", "escalated", "feedback", "log_key"):
            before[name] = connection.execute(text(f"SELECT * FROM {name}")).all()
    log = DecisionLog(any_url, 5.0)
    log.open()
    with engine.connect() as connection:
        for name, (row,) in before.items():
            (grown,) = connection.execute(text(f"SELECT * FROM {name}")).all()
            assert grown[: len(row)] == row
            assert set(grown[len(row) :]) <= {None}
        assert compare_metadata(MigrationContext.configure(connection, opts=VERSION), SCHEMA) == []
    log.add_decisions([LoggedDecision(Origin("r2"), 0, "films/4", "large", unit=b"u")])
    assert [row["probability"] for row in log.read(DECISIONS)] == [None, 1.0]
    log.close()


def test_an_instance_of_the_version_before_may_go_on_writing(any_url: str, engine: Engine) -> None:
    fill_baseline(engine)
    log = DecisionLog(any_url, 5.0)
    log.open()
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "INSERT INTO audits (request_id, item, model_version, probability, small_label, audited_at)"
            " VALUES ('r9', 0, 'films/3', .5, 'good', '2026-01-02 03:04:05.000006')"
        )
    assert log.read(AUDITS)[-1]["state"] == "drawn"
    log.close()


STARTS = """
import sys
from pipelines.serve.log.database import Database
sys.stdin.readline()
Database(sys.argv[1], 20.0).open()
"""


def test_processes_that_start_at_once_make_the_tables_once(any_url: str, engine: Engine) -> None:
    """Promise: whichever replica comes first, no other one fails."""
    command = [sys.executable, "-c", STARTS, any_url]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [process.communicate("go\n", timeout=120) for process in processes]
    assert [(process.returncode, end[1]) for process, end in zip(processes, ends, strict=True)] == [(0, "")] * 3
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM log_key")).scalar() == 1


def test_threads_that_start_at_once_make_the_tables_once(any_url: str) -> None:
    databases = [Database(any_url, 10.0) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(Database.open, databases))
    for database in databases:
        database.close()


def test_tables_of_a_newer_version_are_left_alone_and_it_is_said_why(any_url: str, engine: Engine) -> None:
    Database(any_url, 5.0).open()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE kcm_log_version SET version_num = '9999'")
    with pytest.raises(LogUnavailableError, match=r"another version of this package.*9999"):
        DecisionLog(any_url, 5.0).add_decisions([LoggedDecision(Origin("r"), 0, "1", "small")])


def test_it_shares_a_database_with_another_application_that_uses_alembic(any_url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    Database(any_url, 5.0).open()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["theirs"]
    assert "decisions" in inspect(engine).get_table_names()


def test_what_is_raised_within_a_transaction_undoes_it(any_url: str) -> None:
    database = Database(any_url, 5.0)
    row = {"request_id": "r", "item": 0, "model_version": "1", "probability": 1.0, "small_label": "a"}
    with pytest.raises(RuntimeError), database.writing() as connection:  # noqa: PT012
        connection.execute(
            AUDITS.insert(), row | {"audited_at": LoggedDecision(Origin("r"), 0, "1", "small").answered_at}
        )
        raise RuntimeError
    with database.reading() as connection:
        assert connection.execute(AUDITS.select()).all() == []
    database.close()


def test_readers_see_one_state_and_hold_up_no_writer(any_url: str) -> None:
    log, database = DecisionLog(any_url, 1.0), Database(any_url, 1.0)
    log.add_decisions([LoggedDecision(Origin("before"), 0, "1", "small")])
    with database.reading() as connection:
        first = connection.execute(DECISIONS.select()).all()
        log.add_decisions([LoggedDecision(Origin("meanwhile"), 0, "1", "small")])
        assert connection.execute(DECISIONS.select()).all() == first
    assert len(log.read(DECISIONS)) == 2
    log.close()
    database.close()


def test_sqlite_keeps_a_write_ahead_log_and_waits_for_the_disk(path: Path, url: str) -> None:
    """Promise: what is committed survives a loss of power: 2 is FULL, which syncs the write-ahead log."""
    database = Database(url, 2.0)
    with database.writing() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
    with closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def labelled(log: DecisionLog, request_id: str, **more: Any) -> None:
    log.add_decisions([LoggedDecision(Origin(request_id), 0, "1", "small")])
    log.add_feedback(request_id, None, [Feedback(0, "good", **more)])


def stored(log: DecisionLog) -> list[str]:
    return [row["request_id"] for row in log.read(FEEDBACK)]


@pytest.fixture
def log(url: str) -> DecisionLog:
    log = DecisionLog(url, timeout_s=0.05)
    labelled(log, "before")
    return log


def test_a_locked_database_refuses_and_works_again_afterwards(path: Path, log: DecisionLog) -> None:
    """Promise: nothing is acknowledged that a locked database did not take, and it is used again."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailableError):
            labelled(log, "r1")
        other.execute("ROLLBACK")
    labelled(log, "r2")
    assert stored(log) == ["before", "r2"]


def test_a_database_that_is_gone_is_missed_and_not_made_anew(path: Path, log: DecisionLog) -> None:
    """Promise: what was acknowledged is not hidden behind an empty database in its place."""
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(LogUnavailableError):
        labelled(log, "r1")
    assert not path.exists()
    away.rename(path)
    labelled(log, "r2")
    assert stored(log) == ["before", "r2"]


def test_another_database_in_the_place_of_a_deleted_one_is_written_to(path: Path, log: DecisionLog) -> None:
    """Promise: what is acknowledged is in the file that is there, not in one that is gone with a connection to it."""
    for file in path.parent.iterdir():
        file.unlink()
    other = DecisionLog(f"sqlite:///{path}", timeout_s=2.0)
    labelled(other, "of another")
    labelled(log, "r1")
    assert stored(other) == stored(log) == ["of another", "r1"]


def test_a_full_disk_refuses_what_does_not_fit_and_keeps_what_is_there(
    log: DecisionLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: what does not fit is not acknowledged, and what was is not harmed."""
    connect = sqlite3.connect

    def cramped(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes it as: not one page more than there are
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", cramped)
        log.close()  # it connects anew
        with pytest.raises(LogUnavailableError):
            labelled(log, "r1", text="x" * 100_000)
        log.close()
    labelled(log, "r2")
    assert stored(log) == ["before", "r2"]


def test_a_place_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    log = DecisionLog(f"sqlite:///{tmp_path}/later/feedback.db", timeout_s=0.05)
    with pytest.raises(LogUnavailableError):
        log.open()
    (tmp_path / "later").mkdir()
    labelled(log, "r1")
    assert stored(log) == ["r1"]


def test_a_server_that_does_not_answer_refuses() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        log = DecisionLog(f"postgresql+psycopg://kcm@127.0.0.1:{port}/kcm", timeout_s=1.0)
        with pytest.raises(LogUnavailableError):
            labelled(log, "r1")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite:///feedback.db", "must be absolute"),
        ("sqlite://", "must be absolute"),
        ("postgresql+psycopg://kcm:secret@host/db", "PGPASSWORD"),
        ("postgresql+psycopg://host/db?password=secret", "PGPASSWORD"),
        ("mysql://host/db", "sqlite, postgresql"),
        ("nonsense", "not a URL"),
    ],
)
def test_a_url_that_cannot_work_is_refused(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(FeedbackConfig, {"url": url})
