"""The log's database: where it is, and transactions on its tables in SQLite or PostgreSQL.

SQLite in WAL mode serves the replicas of one machine, PostgreSQL those of several.
"""

from __future__ import annotations

import math
import os
import secrets
import socket
import sqlite3
import weakref
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import ColumnElement, Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import NullPool
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

from kcm.errors import DataError, KcmError
from pipelines.serve.log.tables import DECISIONS, META, SCHEMA, SCHEMA_VERSION

_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_CREATING = 0x6B636D  # PostgreSQL's advisory lock while the tables are made
_NUMBERING = _CREATING + 1  # shared by transactions that number decisions
_MIN_CONNECT_S = 2  # libpq waits no shorter
_KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}  # seconds, seconds, probes


class LogUnavailableError(KcmError):
    """Nothing was stored: the database is gone, locked, full, silent, failing, or of another version."""


class LogVersionError(LogUnavailableError):
    """The tables are of another version than this package's: waiting does not help."""


class Database:
    """Transactions on the log's tables, which are made before the first one.

    Every call blocks, for `timeout_s` at most where the database is locked, and until `interrupt` where it is silent.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = make_url(url), timeout_s
        self._sqlite = self._url.get_backend_name() == "sqlite"
        self._engine = _sqlite_engine(self._url, timeout_s) if self._sqlite else _postgres_engine(self._url, timeout_s)
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        if not self._sqlite:
            event.listen(self._engine, "connect", lambda connection, _: self._connections.add(connection))
        self._ready = False

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on disk when the block ends, or raises LogUnavailableError and has done nothing."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction whose statements all see the same state; it holds up no writer."""
        options = {"begin": "BEGIN"} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._transaction(self._engine.execution_options(**options)) as connection:
            yield connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def last_number(self, *where: ColumnElement[bool]) -> int:
        """The highest number of such decisions below which none will ever be added; 0 without decisions.

        PostgreSQL's transactions commit out of the order of their numbers, so that those under way are waited for.
        SQLite's come one by one.
        """
        last = select(func.max(DECISIONS.c.number)).where(*where)
        with self.reading() if self._sqlite else self.writing() as connection:
            if not self._sqlite:  # the statement after this one sees what was committed meanwhile
                connection.execute(select(func.pg_advisory_xact_lock(_NUMBERING)))
            return connection.scalar(last) or 0

    def open(self) -> None:
        """Make what is missing; LogUnavailableError where that cannot be done now, and is tried again later."""
        with self._unavailable():
            self._prepare()

    def interrupt(self) -> None:
        """Have the calls under way fail, from another thread: a connection that is cut says nothing for minutes."""
        for connection in list(self._connections):
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    def truncate(self) -> None:
        """Empty SQLite's write-ahead log, which holds what has been deleted; with a reader on it, a later write does.

        Elsewhere nothing is done: PostgreSQL overwrites what was deleted in its own time.
        """
        if self._sqlite:
            with suppress(sqlite3.Error), closing(_connect(self._url, "rw", self._timeout_s)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._unavailable():
            self._prepare()
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def _unavailable(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error) as error:
            raise LogUnavailableError(f"the log fails: {type(error).__name__}", where=str(self._url)) from error

    def _prepare(self) -> None:
        """Once: a database that disappears later is not replaced by an empty one, but missed."""
        if self._ready:
            return
        # Another replica may be making the file: SQLite lets nobody wait for one that changes to the write-ahead log.
        for attempt in Retrying(
            retry=retry_if_exception_message(match=".*is locked"),
            stop=stop_after_delay(self._timeout_s),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        ):
            with attempt:
                if self._sqlite:
                    with closing(_connect(self._url, "rwc", self._timeout_s)) as connection:
                        connection.execute("PRAGMA journal_mode=WAL")
                with self._engine.begin() as connection:
                    _create_tables(connection)
        self._ready = True


def share_numbers(connection: Connection) -> None:
    """Number decisions in this transaction, beside other writers; `Database.last_number` waits until it ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(_NUMBERING)))


def erase_content(connection: Connection) -> None:
    """Have what is deleted in this transaction overwritten: SQLite would leave it in free pages of its file."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def insert(connection: Connection, table: Table) -> Any:
    """An insertion that passes over rows which are there already."""
    return _INSERTS[connection.dialect.name](table).on_conflict_do_nothing()


def log_key(connection: Connection) -> bytes:
    """The key of the hashes in this log, which was made with its tables."""
    return bytes.fromhex(connection.scalars(select(META.c.key)).one())


def log_exists(url: str) -> bool:
    """Whether something may have been logged: an SQLite log has its file."""
    return not url.startswith("sqlite") or Path(make_url(url).database or "").exists()


def require_log(url: str) -> None:
    """Raise DataError where the file of an SQLite log does not exist: opening it would make it."""
    if not log_exists(url):
        raise DataError(
            "there is no log: nothing has been served yet",
            where=make_url(url).database or url,
            hint="Start `kcm serve` first",
        )


def _create_tables(connection: Connection) -> None:
    """Make the tables, or find those of this version; whoever comes second waits, and finds them."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(_CREATING)))
    SCHEMA.create_all(connection)
    row = {"id": 1, "version": SCHEMA_VERSION, "key": secrets.token_hex(32)}
    connection.execute(insert(connection, META), [row])
    version = connection.scalar(select(META.c.version))
    if version != SCHEMA_VERSION:
        raise LogVersionError(f"the log's tables are of version {version}, this package reads {SCHEMA_VERSION}")


def _postgres_engine(url: URL, timeout_s: float) -> Engine:
    """One connection is kept. The server ends long statements, TCP a link that is cut."""
    milliseconds = int(timeout_s * 1000)
    limits = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=2,
        pool_timeout=timeout_s,
        connect_args={
            "connect_timeout": max(_MIN_CONNECT_S, math.ceil(timeout_s)),
            "tcp_user_timeout": milliseconds,
            "options": " ".join(f"-c {limit}={milliseconds}" for limit in limits),
            **_KEEPALIVES,
        },
    )


def _sqlite_engine(url: URL, timeout_s: float) -> Engine:
    """Each transaction opens the file: one that was deleted or replaced is noticed, and never written to."""
    engine = create_engine("sqlite://", creator=lambda: _connect(url, "rw", timeout_s), poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


def _begin(connection: Connection) -> None:
    """A writing transaction takes the lock at once: one that reads first is refused it after another has written."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))


def _connect(url: URL, mode: str, timeout_s: float) -> sqlite3.Connection:
    path = Path(url.database or "").as_uri()
    connection = sqlite3.connect(
        f"{path}?mode={mode}", uri=True, timeout=timeout_s, check_same_thread=False, isolation_level=None
    )
    connection.execute("PRAGMA synchronous=FULL")  # a commit survives the loss of power, not of the process alone
    return connection
