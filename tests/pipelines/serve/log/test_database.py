"""How the log's tables are made, and are written to disk."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, inspect, text

from kcm.config import parse_config
from kcm.errors import ConfigError
from pipelines.serve.config import FeedbackConfig
from pipelines.serve.log.database import Database, LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin
from pipelines.serve.log.tables import FEEDBACK


@pytest.fixture
def engine(any_url: str) -> Iterator[Engine]:
    """The same database beside the log's own connections."""
    engine = create_engine(any_url)
    yield engine
    engine.dispose()


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
        assert connection.execute(text("SELECT count(*) FROM log_meta")).scalar() == 1


def test_tables_of_another_version_stay_with_a_reason(any_url: str, engine: Engine) -> None:
    """Promise: tables of another version are left alone and it is said why."""
    Database(any_url, 30.0).open()
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE log_meta SET version = 9999")
    with pytest.raises(LogUnavailableError, match="have version 9999"):
        DecisionLog(any_url, 30.0).add_decisions([LoggedDecision(Origin("r"), 0, "1", "small")])


def test_database_is_shared_with_an_alembic_application(any_url: str, engine: Engine) -> None:
    """Promise: it shares a database with another application that uses alembic."""
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('theirs')")
    Database(any_url, 30.0).open()
    with engine.connect() as connection:
        assert connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all() == ["theirs"]
    assert "decisions" in inspect(engine).get_table_names()


def test_sqlite_keeps_a_write_ahead_log_and_waits_for_the_disk(path: Path, url: str) -> None:
    """Promise: what is committed survives a loss of power: 2 is FULL, which syncs the write-ahead log."""
    database = Database(url, 30.0)
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


def test_a_database_that_is_gone_is_missed_and_not_made_anew(path: Path, log: DecisionLog) -> None:
    """Promise: what was acknowledged is not hidden behind an empty database in its place."""
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(LogUnavailableError):
        labelled(log, "r1")
    assert not path.exists()
    away.rename(path)
    labelled(log, "r2")
    assert stored(log) == ["before", "r2"]


def test_full_disk_refuses_writes_and_keeps_the_rest(log: DecisionLog, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_replaced_database_file_is_written_to(path: Path, log: DecisionLog) -> None:
    """Promise: what is acknowledged is in the file that is there, not in one that is gone with a connection to it."""
    for file in path.parent.iterdir():
        file.unlink()
    other = DecisionLog(f"sqlite:///{path}", timeout_s=30.0)
    labelled(other, "of another")
    labelled(log, "r1")
    assert stored(other) == stored(log) == ["of another", "r1"]
