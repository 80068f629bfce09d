"""The log's database: connections to its tables in SQLite or PostgreSQL.

SQLite in WAL mode serves the replicas of one machine, PostgreSQL those of several. Alembic makes the tables, and lets
those that an older version made grow.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import QueuePool
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_MIGRATIONS = "pipelines.serve.log:migrations"
_LOCK = 0x6B636D  # of PostgreSQL's advisory locks, held while the tables grow
_TURNS = _LOCK + 1  # held while decisions are numbered
_upgrading = threading.Lock()  # Alembic keeps what it works on in a global variable


class LogUnavailableError(Exception):
    """Nothing was stored: the database is gone, locked, full, failing, or of a newer version."""


class Database:
    """Transactions on the log's tables, which are made or brought up to date before the first one.

    Every call blocks, for `timeout_s` at most where the database is locked.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = make_url(url), timeout_s
        self._engine = _engine(self._url, timeout_s)
        self._ready = False

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on disk when the block ends, or raises LogUnavailableError and has done nothing."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction whose statements all see the same state; it holds up no writer."""
        sqlite_only = self._url.get_backend_name() == "sqlite"
        options = {"begin": "BEGIN"} if sqlite_only else {"isolation_level": "REPEATABLE READ"}
        with self._transaction(self._engine.execution_options(**options)) as connection:
            yield connection

    def open(self) -> None:
        """Make what is missing; LogUnavailableError where that cannot be done now, and is tried again later."""
        with _unavailable():
            self._prepare()

    def truncate(self) -> None:
        """Empty SQLite's write-ahead log, which holds what has been deleted; with a reader on it, a later write does.

        Elsewhere nothing is done: PostgreSQL overwrites what was deleted in its own time.
        """
        if self._url.get_backend_name() == "sqlite":
            with suppress(sqlite3.Error), closing(_connect(self._url, "rw", self._timeout_s)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with _unavailable():
            self._prepare()
            with engine.begin() as connection:
                yield connection

    def _prepare(self) -> None:
        """Once: a database that disappears later is not replaced by an empty one, but missed."""
        if self._ready:
            return
        # Another replica may be at it at the same moment, and holds the lock for longer than one statement may wait.
        for attempt in Retrying(
            retry=retry_if_exception_type(SQLAlchemyError),
            stop=stop_after_attempt(5) | stop_after_delay(self._timeout_s),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        ):
            with attempt:
                if self._url.get_backend_name() == "sqlite":
                    _create_sqlite(self._url, self._timeout_s)
                with _upgrading, self._engine.begin() as connection:
                    upgrade(connection)
        self._ready = True


def take_turns(connection: Connection) -> None:
    """Let what is numbered in this transaction be committed before anything that gets a higher number.

    PostgreSQL's transactions would commit out of the order of their numbers; those of SQLite come one by one.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_TURNS)))


def erase_content(connection: Connection) -> None:
    """Have what is deleted in this transaction overwritten: SQLite would leave it in free pages of its file."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def in_utc(moment: datetime) -> datetime:
    """A time of the log in its zone, without which SQLite gives it back."""
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def insert(connection: Connection, table: Table) -> Any:
    """An insertion that passes over rows which are there already."""
    return _INSERTS[connection.dialect.name](table).on_conflict_do_nothing()


def upgrade(connection: Connection, revision: str = "head") -> None:
    """Bring the tables up to date; who comes second waits, and finds nothing left to do."""
    from alembic import command
    from alembic.config import Config as AlembicConfig
    from alembic.util import CommandError

    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_LOCK)))
    config = AlembicConfig()
    config.set_main_option("script_location", _MIGRATIONS)
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, revision)
    except CommandError as error:
        raise LogUnavailableError(f"the tables are of another version of this package: {error}") from error


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except SQLAlchemyError as error:
        raise LogUnavailableError(type(error).__name__) from error


def _engine(url: URL, timeout_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        # Connections stay open: SQLite would end its write-ahead log with the last one, and begin it with the next.
        engine = create_engine("sqlite://", creator=lambda: _connect(url, "rw", timeout_s), poolclass=QueuePool)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "connect", lambda connection, record: record.info.update(file=_file_of(url)))
        event.listen(engine, "checkout", lambda connection, record, _: _require_file(url, record.info["file"]))
        return engine
    milliseconds = int(timeout_s * 1000)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=2,
        max_overflow=0,
        pool_timeout=timeout_s,
        connect_args={
            "connect_timeout": max(1, round(timeout_s)),
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        },
    )


def _file_of(url: URL) -> tuple[int, int] | None:
    """Which file is at the URL; None where there is none."""
    try:
        found = os.stat(url.database or "")
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _require_file(url: URL, file: tuple[int, int] | None) -> None:
    """Have the pool connect anew where another file is there now: a deleted one could be written to for ever."""
    if file is None or _file_of(url) != file:
        raise DisconnectionError("the file is another one")


def _begin(connection: Connection) -> None:
    """What writes takes the lock at once: who reads first would be refused it where another has written meanwhile."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))


def _connect(url: URL, mode: str, timeout_s: float) -> sqlite3.Connection:
    path = Path(url.database or "").as_uri()
    connection = sqlite3.connect(
        f"{path}?mode={mode}", uri=True, timeout=timeout_s, check_same_thread=False, isolation_level=None
    )
    connection.execute("PRAGMA synchronous=FULL")  # a commit survives the loss of power, not of the process alone
    return connection


def _create_sqlite(url: URL, timeout_s: float) -> None:
    try:
        connection = _connect(url, "rwc", timeout_s)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise SQLAlchemyError(str(error)) from error
