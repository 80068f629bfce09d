"""The response cache: paid answers and spending in one database.

No received answer is paid twice, and no budget is exceeded.
Every answer is committed as it arrives. A call is booked at its highest cost before it is sent, and its question is
claimed, so that no other process asks it too. The booking of a killed process stays, because the server may have
charged for the call. Calls that a kill interrupts are asked and paid again, because nobody has their answers.
"""

from __future__ import annotations

import json
import math
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    ColumnElement,
    Connection,
    Float,
    MetaData,
    Table,
    Text,
    delete,
    func,
    literal_column,
    select,
    update,
)
from sqlalchemy.engine import URL

from kcm.errors import ArtefactError, ConfigError, KcmError
from kcm.sql import IN_MEMORY, SqlDatabase, insert
from kcm.user_folder import user_folder

STORE_FILE = "paid.sqlite"  # in the folder of a store
MAX_IN_MEMORY = 10_000  # answers that are kept without a store


class BudgetSpent(Exception):
    """One more call could exceed the budget; the message names the budget."""


class Claimed(Exception):
    """Another process asks the question, or has its answer by now."""


@dataclass(frozen=True)
class ResponseStore:
    """The database at a SQLAlchemy URL, SQLite or PostgreSQL; `prefix` begins the names of its tables.

    `timeout_s` is how long to wait for a database that is locked or unreachable.
    """

    url: str
    prefix: str = ""
    timeout_s: float = 30.0

    @classmethod
    def in_file(cls, path: Path) -> ResponseStore:
        """A store in its own SQLite file."""
        return cls(URL.create("sqlite", database=str(path.absolute())).render_as_string())

    @classmethod
    def at(cls, place: str) -> ResponseStore:
        """The store at a folder, a file, or the URL of a database. Raises ConfigError for any other URI."""
        if "://" not in place:
            path = Path(place).expanduser()
            return cls.in_file(path if path.suffix in (".sqlite", ".db") else path / STORE_FILE)
        if place.startswith(("sqlite", "postgresql")):
            return cls(place)
        raise ConfigError(
            f"paid answers cannot be stored at {place!r}", hint="Name a folder, or postgresql+psycopg://USER@HOST/NAME"
        )

    @classmethod
    def of_user(cls) -> ResponseStore:
        """The user's store, for commands without a run: at KCM_STORE, or in the user's data folder."""
        return cls.at(os.environ.get("KCM_STORE") or str(user_folder()))

    @classmethod
    def in_log(cls, url: str, timeout_s: float = 30.0) -> ResponseStore:
        """Tables in the database of a decision log."""
        return cls(url, "paid_", timeout_s)


@dataclass(frozen=True)
class OpenBatch:
    """A batch of `count` questions, booked at `most`; `id` is None until the server has named it."""

    tag: str
    id: str | None
    count: int
    most: float


class ResponseCache(SqlDatabase):
    """Answers by key, and the spending of one account, over all runs that use this store.

    Without a `store`, the spending and the last `MAX_IN_MEMORY` answers stay in memory. Threads, processes and machines
    may share a store. Raises ArtefactError if it cannot be used.

    For `timeout_s` after a failure, `find` and `reserve` fail immediately: otherwise each queued question would wait
    for a locked database. `clock` returns seconds that never go back.
    """

    pooled = True

    def __init__(
        self,
        store: ResponseStore | None,
        account: str,
        *,
        max_calls: int | None = None,
        max_cost: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        store, self._in_memory = store or ResponseStore(IN_MEMORY), store is None
        super().__init__(store.url, store.timeout_s)
        self._account, self._max_calls, self._max_cost = account, max_calls, max_cost
        self._answers, self._spending, self._batches, self._claims = _tables(store.prefix)
        self._owner = f"{socket.gethostname()} {os.getpid()} {uuid.uuid4().hex}"
        self._turn = threading.Lock()  # a database in memory has one connection
        self._clock = clock
        self._failure: tuple[float, ArtefactError] | None = None  # time and error of the last failure
        with self._failures():
            if self._sqlite and self._url.database:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        self.open()

    def create(self, connection: Connection) -> None:
        """Create the tables and the account, if they are missing."""
        self._answers.metadata.create_all(connection)
        connection.execute(insert(connection, self._spending), [{"account": self._account, "calls": 0, "currency": 0}])

    def failure(self, error: Exception) -> KcmError:
        """Says the cause."""
        cause = " ".join(str(getattr(error, "orig", None) or error).split())
        where = "in memory" if self._in_memory else self._url.render_as_string()
        return ArtefactError(f"cannot use the store of paid answers: {cause}", where=where, hint="Free or repair it")

    def find(self, key: str) -> dict[str, Any] | None:
        """The cached answer, or None."""
        with self._before_a_call(self.reading()) as connection:
            text = connection.scalar(select(self._answers.c.answer).where(self._answers.c.key == key))
        return None if text is None else json.loads(text)

    def known(self, keys: Sequence[str]) -> set[str]:
        """The keys among `keys` that have an answer."""
        with self.reading() as connection:
            return set(connection.scalars(select(self._answers.c.key).where(self._answers.c.key.in_(keys))))

    def spent(self) -> tuple[int, float]:
        """Calls and currency spent so far, including calls that are under way."""
        with self.reading() as connection:
            return self._run_spending(connection)

    def left(self) -> float:
        """Currency that may still be booked."""
        return math.inf if self._max_cost is None else self._max_cost - self.spent()[1]

    def reserve(
        self, amount: float, calls: int = 1, batch: str | None = None, claim: tuple[str, float] | None = None
    ) -> None:
        """Book calls that may cost up to `amount` together. Raises BudgetSpent if that could exceed the budget.

        `batch` is the tag of the calls' batch, which is stored with the booking. `claim` is the key of a question, and
        the seconds that its call may take. Raises Claimed, and books nothing, if another process asks it.
        """
        table = self._spending.c
        has_room = table.account == self._account
        if self._max_calls is not None:
            has_room &= table.calls + calls <= self._max_calls
        if self._max_cost is not None:
            has_room &= table.currency + amount <= self._max_cost
        booking = update(self._spending).where(has_room)
        with self._before_a_call(self.writing()) as connection:
            # One statement checks and books: two processes cannot take the same room.
            if connection.execute(booking.values(calls=table.calls + calls, currency=table.currency + amount)).rowcount:
                if batch:
                    row = {"tag": batch, "account": self._account, "count": calls, "most": amount}
                    connection.execute(self._batches.insert().values(row))
                if claim and not self._in_memory:
                    self._claim(connection, *claim)
                return
            num_calls, currency = self._run_spending(connection)
        if self._max_calls is not None and num_calls + calls > self._max_calls:
            raise BudgetSpent(f"the budget is spent: max_calls = {self._max_calls}")
        raise BudgetSpent(f"the budget is spent: max_cost = {self._max_cost:g}, {currency:g} so far")

    def release(self, amount: float) -> None:
        """Remove the booking of a refused call, which costs nothing."""
        with self.writing() as connection:
            self._book(connection, -1, -amount)

    def keep(self, key: str, answer: dict[str, Any], amount: float, currency: float) -> None:
        """Commit an answer, and replace the booking of `amount` by its cost."""
        with self.writing() as connection:
            connection.execute(insert(connection, self._answers), [{"key": key, "answer": json.dumps(answer)}])
            if self._in_memory:
                number: ColumnElement[int] = literal_column("rowid")
                last = select(func.max(number)).select_from(self._answers).scalar_subquery()
                connection.execute(delete(self._answers).where(number <= last - MAX_IN_MEMORY))
            self._drop_claim(connection, key)
            self._book(connection, 0, currency - amount)

    def unclaim(self, key: str) -> None:
        """Let others ask a question that got no answer."""
        if not self._in_memory:
            with self.writing() as connection:
                self._drop_claim(connection, key)

    def open_batches(self) -> list[OpenBatch]:
        """The batches of this account whose answers were not all read."""
        table = self._batches.c
        query = select(table.tag, table.id, table.count, table.most).where(table.account == self._account)
        with self.reading() as connection:
            return [OpenBatch(*row) for row in connection.execute(query)]

    def name_batch(self, tag: str, name: str) -> None:
        """Store the server's name for a batch."""
        with self.writing() as connection:
            connection.execute(update(self._batches).where(self._batches.c.tag == tag).values(id=name))

    def close_batch(self, batch: OpenBatch, num_answered: int) -> None:
        """Remove a batch whose answers are kept at their own cost; questions without an answer were not charged."""
        with self.writing() as connection:
            if connection.execute(delete(self._batches).where(self._batches.c.tag == batch.tag)).rowcount:
                self._book(connection, num_answered - batch.count, -batch.most)

    @contextmanager
    def _before_a_call(self, transaction: AbstractContextManager[Connection]) -> Iterator[Connection]:
        """A transaction before anything is paid for; after a failure it fails immediately for `timeout_s`."""
        if self._failure and self._clock() < self._failure[0] + self._timeout_s:
            raise ArtefactError(self._failure[1].what, where=self._failure[1].where, hint=self._failure[1].hint)
        try:
            with transaction as connection:
                yield connection
        except ArtefactError as error:
            self._failure = self._clock(), error
            raise
        self._failure = None

    def _claim(self, connection: Connection, key: str, seconds: float) -> None:
        """Claim a question for so long, in place of an earlier claim that is over."""
        table, now = self._claims.c, time.time()
        if connection.scalar(select(self._answers.c.key).where(self._answers.c.key == key)):
            raise Claimed(key)
        other = connection.execute(select(table.owner, table.until).where(table.key == key)).first()
        if other and other.owner != self._owner and other.until > now and not _has_ended(other.owner):
            raise Claimed(key)
        connection.execute(delete(self._claims).where(table.key == key))
        row = {"key": key, "owner": self._owner, "until": now + seconds}
        if not connection.execute(insert(connection, self._claims), [row]).rowcount:
            raise Claimed(key)  # by a transaction that has just ended

    def _drop_claim(self, connection: Connection, key: str) -> None:
        table = self._claims.c
        connection.execute(delete(self._claims).where(table.key == key, table.owner == self._owner))

    def _book(self, connection: Connection, calls: int, currency: float) -> None:
        table = self._spending.c
        booking = update(self._spending).where(table.account == self._account)
        connection.execute(booking.values(calls=table.calls + calls, currency=table.currency + currency))

    def _run_spending(self, connection: Connection) -> tuple[int, float]:
        table = self._spending.c
        row = connection.execute(select(table.calls, table.currency).where(table.account == self._account)).one()
        return int(row.calls), float(row.currency)


def _has_ended(owner: str) -> bool:
    """Whether the process that made a claim ran on this machine and has ended; its call cannot be answered any more."""
    host, number, _ = owner.split()
    if host != socket.gethostname() or int(number) == os.getpid():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's
        return False
    return False


def _tables(prefix: str) -> tuple[Table, Table, Table, Table]:
    """The tables of answers, of spending, of open batches, and of questions that are being asked."""
    schema = MetaData()
    answers = Table(
        f"{prefix}answers", schema, Column("key", Text, primary_key=True), Column("answer", Text, nullable=False)
    )
    spending = Table(
        f"{prefix}spending",
        schema,
        Column("account", Text, primary_key=True),
        Column("calls", BigInteger, nullable=False),
        Column("currency", Float, nullable=False),
    )
    batches = Table(
        f"{prefix}batches",
        schema,
        Column("tag", Text, primary_key=True),
        Column("id", Text),
        Column("account", Text, nullable=False),
        Column("count", BigInteger, nullable=False),
        Column("most", Float, nullable=False),
    )
    claims = Table(
        f"{prefix}claims",
        schema,
        Column("key", Text, primary_key=True),
        Column("owner", Text, nullable=False),
        Column("until", Float, nullable=False),
    )
    return answers, spending, batches, claims
