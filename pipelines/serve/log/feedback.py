"""The feedback log: true labels and escalated answers, committed before anyone is told that they are stored.

SQLite in WAL mode serves the replicas of one machine, PostgreSQL those of several.
"""

from __future__ import annotations

import dataclasses
import datetime
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator
from sqlalchemy import Connection, Engine, Table, create_engine, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateTable
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, stop_after_delay, wait_random

from kcm.bundle.runtime import Answer, Input
from kcm.config import Config
from kcm.redact import PlainUrl
from pipelines.serve.cascade.breaker import BreakerConfig
from pipelines.serve.log.tables import AUDITS, ESCALATED, FEEDBACK, SCHEMA


class FeedbackConfig(Config):
    """Where true labels and escalated answers are kept."""

    url: PlainUrl | None = Field(
        default=None,
        description="SQLAlchemy URL, sqlite:////absolute/path or postgresql+psycopg://host/name (password by PGPASSWORD"
        " or PGPASSFILE); a file in the storage path without one.",
    )
    store_texts: bool = Field(
        default=False, description="Whether the texts of escalated inputs are kept; those of feedback always are."
    )
    timeout_s: float = Field(default=2.0, gt=0, description="Time that the database may take to store something.")
    breaker: BreakerConfig = Field(
        default=BreakerConfig(failures=1, rest_s=1.0), description="When the database is left alone."
    )

    @field_validator("url")
    @classmethod
    def _usable(cls, value: str | None) -> str | None:
        if value is None:
            return None
        try:
            url = make_url(value)
        except ArgumentError:
            raise ValueError("not a URL such as sqlite:////absolute/path.db") from None
        if url.get_backend_name() not in _INSERTS:
            raise ValueError(f"the databases that can be used are {', '.join(_INSERTS)}")
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_absolute():
            raise ValueError("the path must be absolute (sqlite:////path): replicas work in folders of their own")
        return value


@dataclass(frozen=True)
class Feedback:
    """The true label of one item of a request, and the input, if it is to be learned from."""

    item: int
    label: str
    text: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Audit:
    """A kept item that was drawn, with the probability that any was, to be put to the large model too.

    `large_label` is None until that has answered, and where it never does.
    """

    item: int
    model_version: str
    probability: float
    small_label: str
    large_label: str | None = None


@dataclass(frozen=True)
class Labelled:
    """An item whose true label has become known, and its audit where there was one."""

    label: str
    audit: Audit | None


class LogUnavailableError(Exception):
    """Nothing was stored: the database is gone, locked, full or failing."""


class ConflictError(Exception):
    """An item has another label already; nothing of the request was stored."""


class FeedbackLog:
    """Stores durably or raises; every call blocks, for `timeout_s` at most where the database is locked.

    What is stored twice under the same request id and item is stored once.
    """

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url, self._timeout_s = make_url(url), timeout_s
        self._engine = _engine(self._url, timeout_s)
        self._created = False

    def add_feedback(self, request_id: str, labels: Sequence[Feedback]) -> list[Labelled]:
        """Commit all labels, or raise ConflictError or LogUnavailableError and store none; gives those that are new."""
        now = _now()
        rows = [{"request_id": request_id, "received_at": now} | _storable(asdict(label)) for label in labels]
        wanted = {label.item: label.label for label in labels}
        columns = select(FEEDBACK.c.item, FEEDBACK.c.label)
        stored = columns.where(FEEDBACK.c.request_id == request_id, FEEDBACK.c.item.in_(list(wanted)))
        try:
            self._create()
            with self._engine.begin() as connection:
                new = set(connection.scalars(self._insert(FEEDBACK).values(rows).returning(FEEDBACK.c.item)))
                differing = [item for item, label in connection.execute(stored).all() if wanted[item] != label]
                if differing:
                    raise ConflictError(f"item {min(differing)} has another label already")
                audits = _audits(connection, request_id, new)
        except SQLAlchemyError as error:
            raise LogUnavailableError(type(error).__name__) from error
        return [Labelled(wanted[item], audits.get(item)) for item in sorted(new)]

    def add_audits(self, request_id: str, audits: Sequence[Audit]) -> None:
        """Commit audits that are about to be made, or raise LogUnavailableError."""
        rows = [{"request_id": request_id, "audited_at": _now()} | asdict(audit) for audit in audits]
        try:
            self._create()
            with self._engine.begin() as connection:
                connection.execute(self._insert(AUDITS), rows)
        except SQLAlchemyError as error:
            raise LogUnavailableError(type(error).__name__) from error

    def finish_audits(self, request_id: str, audits: Sequence[Audit]) -> list[Labelled]:
        """Commit what the large model said, or raise LogUnavailableError; gives those whose true label came before."""
        try:
            with self._engine.begin() as connection:
                for audit in audits:
                    this = (AUDITS.c.request_id == request_id) & (AUDITS.c.item == audit.item)
                    connection.execute(update(AUDITS).where(this).values(large_label=audit.large_label))
                items = {audit.item: audit for audit in audits}
                known = select(FEEDBACK.c.item, FEEDBACK.c.label).where(
                    FEEDBACK.c.request_id == request_id, FEEDBACK.c.item.in_(list(items))
                )
                return [Labelled(label, items[item]) for item, label in connection.execute(known).all()]
        except SQLAlchemyError as error:
            raise LogUnavailableError(type(error).__name__) from error

    def add_escalated(
        self, request_id: str, model_version: str, answers: Sequence[tuple[int, Input, Answer]], store_texts: bool
    ) -> None:
        """Commit escalated answers with their positions and inputs, or raise LogUnavailableError."""
        shared = {"request_id": request_id, "model_version": model_version, "answered_at": _now()}
        fields = ("route", "label", "probabilities", "confidence", "gate_score", "cost_s")
        rows = [
            shared
            | {"item": item, "task": given.task, "text": given.content.text if store_texts else None}
            | {field: getattr(answer, field) for field in fields}
            for item, given, answer in answers
        ]
        try:
            self._create()
            with self._engine.begin() as connection:
                connection.execute(self._insert(ESCALATED), [_storable(row) for row in rows])
        except SQLAlchemyError as error:
            raise LogUnavailableError(type(error).__name__) from error

    def read(self, table: Table) -> list[dict[str, Any]]:
        """All rows of a table, in the order of request id and item."""
        with self._engine.begin() as connection:
            rows = connection.execute(select(table).order_by(table.c.request_id, table.c.item))
            return [dict(row) for row in rows.mappings()]

    def open(self) -> None:
        """Create what is missing; LogUnavailableError where that cannot be done now, and is tried again later."""
        try:
            self._create()
        except SQLAlchemyError as error:
            raise LogUnavailableError(type(error).__name__) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    def _create(self) -> None:
        """Once: a database that disappears later is not replaced by an empty one, but missed."""
        if self._created:
            return
        # Another replica may be at it at the same moment, which no database likes.
        for attempt in Retrying(
            retry=retry_if_exception_type(SQLAlchemyError),
            stop=stop_after_attempt(5) | stop_after_delay(self._timeout_s),
            wait=wait_random(0.01, 0.1),
            reraise=True,
        ):
            with attempt:
                if self._url.get_backend_name() == "sqlite":
                    _create_sqlite(self._url, self._timeout_s)
                with self._engine.begin() as connection:
                    for table in SCHEMA.sorted_tables:
                        connection.execute(CreateTable(table, if_not_exists=True))
        self._created = True

    def _insert(self, table: Table) -> Any:
        return _INSERTS[self._url.get_backend_name()](table).on_conflict_do_nothing()


def _audits(connection: Connection, request_id: str, items: Collection[int]) -> dict[int, Audit]:
    """The audits of these items of a request."""
    fields = [AUDITS.c[field.name] for field in dataclasses.fields(Audit)]
    rows = connection.execute(select(*fields).where(AUDITS.c.request_id == request_id, AUDITS.c.item.in_(list(items))))
    return {row.item: Audit(*row) for row in rows}


_INSERTS: dict[str, Any] = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}


def _engine(url: URL, timeout_s: float) -> Engine:
    if url.get_backend_name() == "sqlite":
        # A connection per write: one that stays open would go on writing into a file that has been deleted.
        return create_engine("sqlite://", creator=lambda: _connect(url, "rw", timeout_s), poolclass=NullPool)
    milliseconds = int(timeout_s * 1000)
    return create_engine(
        url,
        pool_pre_ping=True,
        pool_size=1,
        max_overflow=0,
        pool_timeout=timeout_s,
        connect_args={
            "connect_timeout": max(1, round(timeout_s)),
            "options": f"-c statement_timeout={milliseconds} -c lock_timeout={milliseconds}",
        },
    )


def _connect(url: URL, mode: str, timeout_s: float) -> sqlite3.Connection:
    path = Path(url.database or "").as_uri()
    return sqlite3.connect(f"{path}?mode={mode}", uri=True, timeout=timeout_s, check_same_thread=False)


def _create_sqlite(url: URL, timeout_s: float) -> None:
    try:
        connection = _connect(url, "rwc", timeout_s)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise SQLAlchemyError(str(error)) from error


def _storable(row: dict[str, Any]) -> dict[str, Any]:
    """Without the character NUL, which PostgreSQL cannot store in a text."""
    return {name: value.replace("\x00", "") if isinstance(value, str) else value for name, value in row.items()}


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
