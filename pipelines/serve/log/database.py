"""The database of the log: its address, and transactions on its tables.

SQLite in WAL mode serves the replicas of one machine; PostgreSQL serves the replicas of several machines.
"""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path
from typing import ClassVar

from sqlalchemy import ColumnElement, Connection, func, select
from sqlalchemy.engine import make_url

from kcm.errors import DataError, KcmError, is_disk_full
from kcm.sql import CREATING, SqlDatabase, insert
from pipelines.serve.log.tables import DECISIONS, META, SCHEMA, SCHEMA_VERSION

APPLICATION = "kcm"  # the name of an application that has none
MIN_ROOM = 1 << 17  # bytes: the index of a write-ahead log, and as much again
_NUMBERING = CREATING + 1  # PostgreSQL's advisory lock shared by transactions that number decisions


class LogUnavailableError(KcmError):
    """Nothing was stored: the database is absent, locked, full, silent, failing, or has another version."""


class LogVersionError(LogUnavailableError):
    """The tables have another version than this package expects: waiting does not help."""


class Database(SqlDatabase):
    """Transactions on the tables of the log of one application; LogUnavailableError if one fails."""

    wal: ClassVar[bool] = True

    def __init__(self, url: str, timeout_s: float, application: str = APPLICATION) -> None:
        super().__init__(url, timeout_s)
        self._application = application

    def create(self, connection: Connection) -> None:
        """Create the tables, or check that they have this version."""
        SCHEMA.create_all(connection)
        row = {"id": 1, "version": SCHEMA_VERSION, "key": secrets.token_hex(32)}
        connection.execute(insert(connection, META), [row])
        version = connection.scalar(select(META.c.version))
        if version != SCHEMA_VERSION:
            raise LogVersionError(f"the log's tables have version {version}, this package reads {SCHEMA_VERSION}")

    def failure(self, error: Exception) -> KcmError:
        """Names the kind of error alone: its text may hold what was to be stored."""
        if is_disk_full(error) or self._has_no_room():
            return LogUnavailableError("the disk is full", where=str(self._url.database))
        return LogUnavailableError(f"the log fails: {type(error).__name__}", where=str(self._url))

    def _has_no_room(self) -> bool:
        """Whether SQLite's disk has no room for its write-ahead log: it then says only that it cannot open a file."""
        folder = Path(self._url.database or "").parent
        return self._sqlite and folder.is_dir() and shutil.disk_usage(folder).free < MIN_ROOM

    def last_number(self, *where: ColumnElement[bool]) -> int:
        """The highest number of such decisions below which none will ever be added; 0 without decisions.

        PostgreSQL's transactions commit out of the order of their numbers, so open transactions are waited for.
        SQLite runs them one by one.
        """
        last = select(func.max(DECISIONS.c.number)).where(*where)
        with self.reading() if self._sqlite else self.writing() as connection:
            if not self._sqlite:  # the statement after this one sees what was committed meanwhile
                connection.execute(select(func.pg_advisory_xact_lock(_NUMBERING)))
            return connection.scalar(last) or 0


def share_numbers(connection: Connection) -> None:
    """Number decisions in this transaction while others write; `Database.last_number` waits until it ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock_shared(_NUMBERING)))


def take_turns(connection: Connection, name: str) -> None:
    """Run the transactions that share this name one after another, as SQLite does with all that write."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(CREATING, func.hashtext(name))))


def erase_content(connection: Connection) -> None:
    """Overwrite what this transaction deletes: SQLite would leave it in free pages of its file."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete = ON")


def log_key(connection: Connection) -> bytes:
    """The key of the hashes in this log, created with its tables."""
    return bytes.fromhex(connection.scalars(select(META.c.key)).one())


def log_exists(url: str) -> bool:
    """Whether anything may have been logged: the file of an SQLite log exists."""
    return not url.startswith("sqlite") or Path(make_url(url).database or "").exists()


def require_log(url: str) -> None:
    """Raise DataError if the file of an SQLite log does not exist: opening the log would create it."""
    if not log_exists(url):
        raise DataError(
            "there is no log: nothing has been served yet",
            where=make_url(url).database or url,
            hint="Start `kcm serve` first",
        )
