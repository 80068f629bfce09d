"""Transactions on tables in SQLite or PostgreSQL: the log of a service, and the store of paid answers."""

from __future__ import annotations

import math
import os
import socket
import sqlite3
import weakref
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from sqlalchemy import Connection, Engine, Table, create_engine, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import DisconnectionError, SQLAlchemyError
from sqlalchemy.pool import NullPool, QueuePool, StaticPool
from tenacity import Retrying, retry_if_exception_message, stop_after_delay, wait_random

from kcm.errors import KcmError

IN_MEMORY = "sqlite://"  # a database of one connection, gone when the process ends
CREATING = 0x6B636D  # PostgreSQL's advisory lock for creating tables
_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_MIN_CONNECT_S = 2  # libpq's shortest wait
_KEEPALIVES = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}  # seconds, seconds, probes


class SqlDatabase(ABC):
    """Transactions on tables that are created before the first transaction.

    Every call blocks: at most `timeout_s` if the database is locked, and until `interrupt` if it is silent.
    """

    wal: ClassVar[bool] = False  # SQLite's WAL mode: readers hold up no writer, on one machine
    pooled: ClassVar[bool] = False  # keep SQLite's file open: closing it writes a WAL back, which takes milliseconds

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = make_url(url), timeout_s
        self._sqlite = self._url.get_backend_name() == "sqlite"
        if self._sqlite:
            self._engine = _sqlite_engine(self._url, timeout_s, self.pooled)
        else:
            self._engine = _postgres_engine(self._url, timeout_s)
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        if not self._sqlite:
            event.listen(self._engine, "connect", lambda connection, _: self._connections.add(connection))
        self._turn: AbstractContextManager[object] = nullcontext()  # held by the thread that may begin a transaction
        self._ready = False

    @abstractmethod
    def create(self, connection: Connection) -> None:
        """Create the tables unless they exist; only one process at a time calls this."""

    @abstractmethod
    def failure(self, error: Exception) -> KcmError:
        """The error to raise if the database fails."""

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is on disk when the block ends; if it raises `failure`, nothing was changed."""
        with self._transaction(self._engine) as connection:
            yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction whose statements all see the same state; it does not block a writer."""
        options = {"begin": "BEGIN"} if self._sqlite else {"isolation_level": "REPEATABLE READ"}
        with self._transaction(self._engine.execution_options(**options)) as connection:
            yield connection

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Create what is missing; raises `failure` if that is not possible now, and tries again later."""
        with self._failures():
            self._prepare()

    def interrupt(self) -> None:
        """Let calls under way fail, from another thread: a cut connection would be silent for minutes."""
        for connection in list(self._connections):
            with suppress(Exception), socket.socket(fileno=os.dup(connection.fileno())) as copy:
                copy.shutdown(socket.SHUT_RDWR)

    def truncate(self) -> None:
        """Empty SQLite's write-ahead log, which still holds deleted rows; if a reader uses it, a later write does so.

        Does nothing for PostgreSQL, which overwrites deleted rows at its own time.
        """
        if self._sqlite:
            with suppress(sqlite3.Error), closing(_connect(self._url, "rw", self._timeout_s)) as connection:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    @contextmanager
    def _transaction(self, engine: Engine) -> Iterator[Connection]:
        with self._turn, self._failures():
            self._prepare()
            with engine.begin() as connection:
                yield connection

    @contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, sqlite3.Error, OSError) as error:
            raise self.failure(error) from error

    def _prepare(self) -> None:
        """Called once: a database that disappears later raises an error and is not replaced by an empty one."""
        if self._ready:
            return
        # Another process may be creating the file: SQLite does not wait for a switch to the write-ahead log.
        for attempt in Retrying(
            retry=retry_if_exception_message(match=".*is locked"),
            stop=stop_after_delay(self._timeout_s),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        ):
            with attempt:
                if self._sqlite and self._url.database:
                    with closing(_connect(self._url, "rwc", self._timeout_s)) as connection:
                        if self.wal:
                            connection.execute("PRAGMA journal_mode=WAL")
                with self._engine.begin() as connection:
                    if not self._sqlite:
                        connection.execute(select(func.pg_advisory_xact_lock(CREATING)))
                    self.create(connection)
        self._ready = True


def insert(connection: Connection, table: Table) -> Any:
    """An insertion that skips existing rows."""
    return _INSERTS[connection.dialect.name](table).on_conflict_do_nothing()


def _postgres_engine(url: URL, timeout_s: float) -> Engine:
    """An engine with one connection. The server ends long statements; TCP ends a cut link."""
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


def _sqlite_engine(url: URL, timeout_s: float, pooled: bool) -> Engine:
    """Each transaction opens the file, or finds the connection of an earlier one to the same file.

    So a file that was deleted or replaced is noticed, and never written to.
    """
    options: dict[str, Any] = {"poolclass": NullPool if url.database else StaticPool}
    if url.database and pooled:
        options = {"poolclass": QueuePool, "pool_size": 1, "max_overflow": -1}
    engine = create_engine("sqlite://", creator=lambda: _connect(url, "rw", timeout_s), **options)
    event.listen(engine, "begin", _begin)
    if url.database and pooled:
        path = Path(url.database)
        event.listen(engine, "connect", lambda _, record: record.info.update(file=_file(path)))
        event.listen(engine, "checkout", partial(_require_same_file, path))
    return engine


def _file(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one at its path; None if there is none."""
    with suppress(FileNotFoundError):
        status = path.stat()
        return status.st_dev, status.st_ino
    return None


def _require_same_file(path: Path, _: Any, record: Any, __: Any) -> None:
    """Have the pool open the file again if it is not there any more, or another one."""
    if record.info["file"] != _file(path):
        raise DisconnectionError


def _begin(connection: Connection) -> None:
    """A writing transaction takes the lock first: after a read, SQLite may refuse the lock if another has written."""
    connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN IMMEDIATE"))


def _connect(url: URL, mode: str, timeout_s: float) -> sqlite3.Connection:
    place = f"{Path(url.database).as_uri()}?mode={mode}" if url.database else ":memory:"
    connection = sqlite3.connect(place, uri=True, timeout=timeout_s, check_same_thread=False, isolation_level=None)
    connection.execute("PRAGMA synchronous=FULL")  # a commit survives a power failure, not only the process's end
    return connection
