"""What was paid for: answers and spending in one SQLite file, so that nothing is paid twice and no budget is passed.

Every answer is committed as it comes. A call counts, at the most it can cost, from before it is sent: what became of
one whose process was killed is unknown, and whatever a server may have charged for is taken as charged.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kcm.errors import ArtefactError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS spending (account TEXT PRIMARY KEY, calls INTEGER NOT NULL, currency REAL NOT NULL);
"""


class BudgetSpent(Exception):
    """One more call might pass the budget; the message says which."""


class PaidAnswers:
    """Answers by key, and what the calls of one account have cost in all, over every run that used this file.

    `path` None keeps both in memory. Threads and processes may share a file. Raises ArtefactError when it cannot be
    used.
    """

    def __init__(
        self, path: Path | None, account: str, *, max_calls: int | None = None, max_cost: float | None = None
    ) -> None:
        self._path, self._account = path, account
        self._max_calls, self._max_cost = max_calls, max_cost
        self._lock = threading.Lock()
        with self._explained():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path or ":memory:", timeout=30, check_same_thread=False, isolation_level=None
            )
            self._database.executescript(_SCHEMA)
            self._database.execute("INSERT OR IGNORE INTO spending VALUES (?, 0, 0)", (account,))

    def find(self, key: str) -> dict[str, Any] | None:
        """The answer that was paid for, or None."""
        with self._lock, self._explained():
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        found: dict[str, Any] = json.loads(row[0])
        return found

    def spent(self) -> tuple[int, float]:
        """Calls and currency spent so far, calls under way included."""
        with self._lock, self._explained():
            return self._spent()

    def reserve(self, most: float) -> None:
        """Book a call that may cost up to `most`; BudgetSpent where that could pass the budget."""
        with self._transaction():
            calls, currency = self._spent()
            if self._max_calls is not None and calls >= self._max_calls:
                raise BudgetSpent(f"the budget is spent: max_calls = {self._max_calls}")
            if self._max_cost is not None and currency + most > self._max_cost:
                raise BudgetSpent(f"the budget is spent: max_cost = {self._max_cost:g}, {currency:g} so far")
            self._book(1, most)

    def release(self, most: float) -> None:
        """Take back the booking of a call that was refused, and so costs nothing."""
        with self._transaction():
            self._book(-1, -most)

    def keep(self, key: str, answer: dict[str, Any], most: float, currency: float) -> None:
        """Commit an answer and what it cost, in place of the `most` that was booked for it."""
        with self._transaction():
            self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", (key, json.dumps(answer)))
            self._book(0, currency - most)

    def _book(self, calls: int, currency: float) -> None:
        self._database.execute(
            "UPDATE spending SET calls = calls + ?, currency = currency + ? WHERE account = ?",
            (calls, currency, self._account),
        )

    def _spent(self) -> tuple[int, float]:
        row = self._database.execute("SELECT calls, currency FROM spending WHERE account = ?", (self._account,))
        calls, currency = row.fetchone()
        return int(calls), float(currency)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing, alone among threads and processes."""
        with self._lock, self._explained():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ArtefactError(
                f"cannot use the file of paid answers: {error}", where=str(self._path), mend="Free or repair it"
            ) from error
