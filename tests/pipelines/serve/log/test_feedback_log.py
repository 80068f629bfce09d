"""The feedback log on real SQLite files, and on a real PostgreSQL server where there is one."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from kcm.bundle.runtime import Answer, Input
from kcm.config import parse_config
from kcm.errors import ConfigError
from kcm.inputs.content import Content
from pipelines.serve.log.feedback import (
    ConflictError,
    Feedback,
    FeedbackConfig,
    FeedbackLog,
    LogUnavailableError,
)
from pipelines.serve.log.tables import ESCALATED, FEEDBACK

ANSWER = Answer("good", {"good": 0.75, "bad": 0.25}, 0.6, 0.4, 1.5, "large", False, 0.2)

# Where the server is required, its absence is a failure and never a pass.
POSTGRES_REQUIRED = os.environ.get("KCM_TEST_POSTGRES") == "1"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a PostgreSQL server of our own, on a socket in a temporary folder; it refuses to run as root."""
    programs = {name: _program(name) for name in ("initdb", "pg_ctl")}
    if None in programs.values():
        pytest.fail("KCM_TEST_POSTGRES=1, but PostgreSQL is missing: apt-get install postgresql")
    folder = Path("/tmp") / f"kcm-postgres-{os.getpid()}"  # a socket's path must be short
    folder.mkdir()
    runner: list[str] = []
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        runner = ["setpriv", f"--reuid={nobody.pw_uid}", f"--regid={nobody.pw_gid}", "--clear-groups"]
    data, log = folder / "data", folder / "log"

    def call(*command: str) -> None:
        done = subprocess.run([*runner, *command], cwd=folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")

    try:
        call(str(programs["initdb"]), "-D", str(data), "-U", "kcm", "-A", "trust", "--no-sync", "-E", "UTF8")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        call(str(programs["pg_ctl"]), "-D", str(data), "-l", str(log), "-o", options, "-w", "start")
        yield f"postgresql+psycopg://kcm@/postgres?host={folder}"
        call(str(programs["pg_ctl"]), "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _program(name: str) -> Path | None:
    """On the path, or where Debian keeps what belongs to a version of the server."""
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    return Path(found) if found else None


# Where PostgreSQL is not required, its cases do not exist: what is not run is not counted.
BACKENDS = ["sqlite", "postgres"] if POSTGRES_REQUIRED else ["sqlite"]


@pytest.fixture(params=BACKENDS)
def log(request: pytest.FixtureRequest, path: Path) -> Iterator[FeedbackLog]:
    url = request.getfixturevalue("postgres") if request.param == "postgres" else f"sqlite:///{path}"
    log = FeedbackLog(url, timeout_s=2.0)
    log.open()
    yield log
    if request.param == "postgres":
        with log._engine.begin() as connection:
            FEEDBACK.metadata.drop_all(connection)
    log.close()


def labels(log: FeedbackLog) -> list[tuple[Any, ...]]:
    return [(row["request_id"], row["item"], row["label"], row["text"]) for row in log.read(FEEDBACK)]


def test_labels_are_stored_with_what_came_with_them(log: FeedbackLog) -> None:
    log.add_feedback("r1", [Feedback(0, "good", "A film — ünïcode.", "movies"), Feedback(2, "bad")])
    first, second = log.read(FEEDBACK)
    assert (first["label"], first["text"], first["task"]) == ("good", "A film — ünïcode.", "movies")
    assert (second["item"], second["label"], second["text"]) == (2, "bad", None)
    assert first["received_at"] is not None


def test_what_is_sent_twice_is_stored_once(log: FeedbackLog) -> None:
    log.add_feedback("r1", [Feedback(0, "good", "first")])
    log.add_feedback("r1", [Feedback(0, "good", "again"), Feedback(1, "bad")])
    assert labels(log) == [("r1", 0, "good", "first"), ("r1", 1, "bad", None)]


def test_another_label_for_the_same_item_is_refused_and_nothing_of_it_is_stored(log: FeedbackLog) -> None:
    log.add_feedback("r1", [Feedback(1, "good")])
    with pytest.raises(ConflictError, match="item 1 has another label"):
        log.add_feedback("r1", [Feedback(0, "good"), Feedback(1, "bad")])
    assert labels(log) == [("r1", 1, "good", None)]


def test_escalated_answers_are_kept_without_their_texts_unless_asked_for(log: FeedbackLog) -> None:
    log.add_escalated("r1", "films/3", [(1, Input(Content("private"), "films"), ANSWER)], store_texts=False)
    log.add_escalated("r2", "films/3", [(0, Input(Content("public\x00"), "films"), ANSWER)], store_texts=True)
    first, second = log.read(ESCALATED)
    assert (first["item"], first["model_version"], first["route"], first["label"]) == (1, "films/3", "large", "good")
    assert (first["probabilities"], first["task"], first["text"]) == ({"good": 0.75, "bad": 0.25}, "films", None)
    assert second["text"] == "public"


def test_writers_at_once_lose_nothing(log: FeedbackLog) -> None:
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda number: log.add_feedback(f"r{number % 20}", [Feedback(0, "good")]), range(40)))
    assert len(log.read(FEEDBACK)) == 20


def test_the_tables_are_made_once_by_whichever_replica_comes_first(path: Path) -> None:
    logs = [FeedbackLog(f"sqlite:///{path}", 2.0) for _ in range(6)]
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(FeedbackLog.open, logs))
    logs[0].add_feedback("r1", [Feedback(0, "good")])
    assert labels(logs[5]) == [("r1", 0, "good", None)]


def test_sqlite_keeps_a_write_ahead_log(path: Path) -> None:
    FeedbackLog(f"sqlite:///{path}", 2.0).open()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def sqlite_log(path: Path) -> FeedbackLog:
    log = FeedbackLog(f"sqlite:///{path}", timeout_s=0.05)
    log.add_feedback("before", [Feedback(0, "good")])
    return log


def test_a_locked_database_refuses_and_works_again_afterwards(path: Path) -> None:
    """Promise: nothing is acknowledged that a locked database did not take, and it is used again."""
    log = sqlite_log(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LogUnavailableError):
            log.add_feedback("r1", [Feedback(0, "good")])
        other.execute("ROLLBACK")
    log.add_feedback("r2", [Feedback(0, "good")])
    assert [row[0] for row in labels(log)] == ["before", "r2"]


def test_a_database_that_is_gone_is_missed_and_not_made_anew(path: Path) -> None:
    """Promise: what was acknowledged is not hidden behind an empty database in its place."""
    log = sqlite_log(path)
    away = path.rename(path.with_suffix(".away"))
    with pytest.raises(LogUnavailableError):
        log.add_feedback("r1", [Feedback(0, "good")])
    assert not path.exists()
    away.rename(path)
    log.add_feedback("r2", [Feedback(0, "good")])
    assert [row[0] for row in labels(log)] == ["before", "r2"]


def test_a_full_disk_refuses_what_does_not_fit_and_keeps_what_is_there(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: what does not fit is not acknowledged, and what was is not harmed."""
    log = sqlite_log(path)
    connect = sqlite3.connect

    def cramped(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection = connect(*arguments, **options)
        connection.execute("PRAGMA max_page_count = 1")  # SQLite takes it as: not one page more than there are
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(sqlite3, "connect", cramped)
        with pytest.raises(LogUnavailableError):
            log.add_feedback("r1", [Feedback(0, "good", "x" * 100_000)])
    log.add_feedback("r2", [Feedback(0, "good")])
    assert [row[0] for row in labels(log)] == ["before", "r2"]


def test_a_place_that_cannot_be_written_is_tried_again(tmp_path: Path) -> None:
    log = FeedbackLog(f"sqlite:///{tmp_path}/later/feedback.db", timeout_s=0.05)
    with pytest.raises(LogUnavailableError):
        log.open()
    (tmp_path / "later").mkdir()
    log.add_feedback("r1", [Feedback(0, "good")])
    assert labels(log) == [("r1", 0, "good", None)]


def test_a_server_that_does_not_answer_refuses() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        log = FeedbackLog(f"postgresql+psycopg://kcm@127.0.0.1:{port}/kcm", timeout_s=1.0)
        with pytest.raises(LogUnavailableError):
            log.add_feedback("r1", [Feedback(0, "good")])


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
