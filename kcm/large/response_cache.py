"""The response cache: paid answers and spending in one database; no answer that arrived is paid twice, no budget is
exceeded.

Every answer is committed as it arrives. A call is booked at its maximal cost before it is sent; the booking of a killed
process stays, since the server may have charged for the call. The calls that a kill interrupts are asked and paid
again: nobody has their answers.
"""

from __future__ import annotations

import json
import math
import os
import threading
import time
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
_BOOKING = 0x6B636D70  # PostgreSQL's advisory lock of a booking that is limited by the spending of all accounts


class BudgetSpent(Exception):
    """One more call could exceed the budget; the message says which."""


@dataclass(frozen=True)
class ResponseStore:
    """The database of a SQLAlchemy URL, SQLite or PostgreSQL; `prefix` begins the names of its tables.

    `timeout_s` is how long a database that is locked or out of reach is waited for. `max_cost` limits what all accounts
    together may have spent when one more call is booked; None: no limit.
    """

    url: str
    prefix: str = ""
    timeout_s: float = 30.0
    max_cost: float | None = None

    @classmethod
    def in_file(cls, path: Path) -> ResponseStore:
        """A SQLite file of its own."""
        return cls(URL.create("sqlite", database=str(path.absolute())).render_as_string())

    @classmethod
    def at(cls, place: str) -> ResponseStore:
        """The store at a folder, a file, or the URL of a database. Raises ConfigError for another URI."""
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
        """The user's own store, of commands without a run: where KCM_STORE says, else in the user's data folder."""
        return cls.at(os.environ.get("KCM_STORE") or str(user_folder()))

    @classmethod
    def in_log(cls, url: str, timeout_s: float = 30.0) -> ResponseStore:
        """Tables beside those of a log of decisions."""
        return cls(url, "paid_", timeout_s)


@dataclass(frozen=True)
class OpenBatch:
    """A batch of `count` questions that is booked at `most`; `id` is None until the server has named it."""

    tag: str
    id: str | None
    count: int
    most: float


class ResponseCache(SqlDatabase):
    """Answers by key, and the spending of one account, over all runs that use this store.

    `store` None keeps the spending and the last `MAX_IN_MEMORY` answers in memory. Threads, processes and machines may
    share a store. Raises ArtefactError when it cannot be used.

    For `timeout_s` after one question has failed, `find` and `reserve` fail at once: queued questions would each wait
    for a locked database. `clock` gives seconds that never go back.
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
        self._account, self._max_calls, self._max_cost, self._most_in_all = account, max_calls, max_cost, store.max_cost
        self._answers, self._spending, self._batches = _tables(store.prefix)
        self._turn = threading.Lock()  # a database in memory has one connection
        self._clock = clock
        self._failed: tuple[float, ArtefactError] | None = None  # when and how a question was last failed
        with self._failures():
            if self._sqlite and self._url.database:
                Path(self._url.database).parent.mkdir(parents=True, exist_ok=True)
        self.open()

    def create(self, connection: Connection) -> None:
        """The tables and the account, where they are not there yet."""
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
        """Those of `keys` that have an answer."""
        with self.reading() as connection:
            return set(connection.scalars(select(self._answers.c.key).where(self._answers.c.key.in_(keys))))

    def spent(self) -> tuple[int, float]:
        """Calls and currency spent so far, calls under way included."""
        with self.reading() as connection:
            return self._spent(connection)

    def left(self) -> float:
        """Currency that may still be booked, by the budget of this account and the total of the store."""
        with self.reading() as connection:
            own, in_all = self._spent(connection)[1], self._spent_in_all(connection)
        limits = ((self._max_cost, own), (self._most_in_all, in_all))
        return min((most - spent for most, spent in limits if most is not None), default=math.inf)

    def reserve(self, most: float, calls: int = 1, batch: str | None = None) -> None:
        """Book calls that may cost up to `most` together; raises BudgetSpent where that could exceed the budget.

        `batch` is the tag of a batch that they are in, which is noted with the booking.
        """
        table = self._spending.c
        has_room = table.account == self._account
        if self._max_calls is not None:
            has_room &= table.calls + calls <= self._max_calls
        if self._max_cost is not None:
            has_room &= table.currency + most <= self._max_cost
        if self._most_in_all is not None:
            has_room &= (
                select(func.sum(self._spending.alias().c.currency)).scalar_subquery() + most <= self._most_in_all
            )
        booking = update(self._spending).where(has_room)
        with self._before_a_call(self.writing()) as connection:
            if self._most_in_all is not None and not self._sqlite:  # other accounts are rows that no update locks
                connection.execute(select(func.pg_advisory_xact_lock(_BOOKING)))
            # Checked and booked by one statement: two processes cannot take the same room.
            if connection.execute(booking.values(calls=table.calls + calls, currency=table.currency + most)).rowcount:
                if batch:
                    row = {"tag": batch, "account": self._account, "count": calls, "most": most}
                    connection.execute(self._batches.insert().values(row))
                return
            (made, currency), in_all = self._spent(connection), self._spent_in_all(connection)
        if self._max_calls is not None and made + calls > self._max_calls:
            raise BudgetSpent(f"the budget is spent: max_calls = {self._max_calls}")
        if self._max_cost is not None and currency + most > self._max_cost:
            raise BudgetSpent(f"the budget is spent: max_cost = {self._max_cost:g}, {currency:g} so far")
        raise BudgetSpent(f"the budget of the store is spent: {self._most_in_all:g} in all, {in_all:g} so far")

    def release(self, most: float) -> None:
        """Remove the booking of a refused call, which costs nothing."""
        with self.writing() as connection:
            self._book(connection, -1, -most)

    def settle(self, most: float, currency: float) -> None:
        """Replace the booking of `most` by the cost of a call whose answer is not kept."""
        with self.writing() as connection:
            self._book(connection, 0, currency - most)

    def keep(self, key: str, answer: dict[str, Any], most: float, currency: float) -> None:
        """Commit an answer, and replace the booking of `most` by its cost."""
        with self.writing() as connection:
            connection.execute(insert(connection, self._answers), [{"key": key, "answer": json.dumps(answer)}])
            if self._in_memory:
                number: ColumnElement[int] = literal_column("rowid")
                last = select(func.max(number)).select_from(self._answers).scalar_subquery()
                connection.execute(delete(self._answers).where(number <= last - MAX_IN_MEMORY))
            self._book(connection, 0, currency - most)

    def open_batches(self) -> list[OpenBatch]:
        """The batches of this account whose answers were not all read."""
        table = self._batches.c
        query = select(table.tag, table.id, table.count, table.most).where(table.account == self._account)
        with self.reading() as connection:
            return [OpenBatch(*row) for row in connection.execute(query)]

    def name_batch(self, tag: str, name: str) -> None:
        """Note what the server calls a batch."""
        with self.writing() as connection:
            connection.execute(update(self._batches).where(self._batches.c.tag == tag).values(id=name))

    def close_batch(self, batch: OpenBatch, answered: int) -> None:
        """Forget a batch whose answers are kept at their own cost; questions without an answer were not charged."""
        with self.writing() as connection:
            if connection.execute(delete(self._batches).where(self._batches.c.tag == batch.tag)).rowcount:
                self._book(connection, answered - batch.count, -batch.most)

    @contextmanager
    def _before_a_call(self, transaction: AbstractContextManager[Connection]) -> Iterator[Connection]:
        """A transaction before anything is paid for; it fails at once for a while after one has failed."""
        if self._failed and self._clock() < self._failed[0] + self._timeout_s:
            raise ArtefactError(self._failed[1].what, where=self._failed[1].where, hint=self._failed[1].hint)
        try:
            with transaction as connection:
                yield connection
        except ArtefactError as error:
            self._failed = self._clock(), error
            raise
        self._failed = None

    def _book(self, connection: Connection, calls: int, currency: float) -> None:
        table = self._spending.c
        booking = update(self._spending).where(table.account == self._account)
        connection.execute(booking.values(calls=table.calls + calls, currency=table.currency + currency))

    def _spent(self, connection: Connection) -> tuple[int, float]:
        table = self._spending.c
        row = connection.execute(select(table.calls, table.currency).where(table.account == self._account)).one()
        return int(row.calls), float(row.currency)

    def _spent_in_all(self, connection: Connection) -> float:
        return float(connection.scalar(select(func.sum(self._spending.c.currency))) or 0.0)


def _tables(prefix: str) -> tuple[Table, Table, Table]:
    """The tables of answers, of spending, and of batches that are under way."""
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
    return answers, spending, batches
