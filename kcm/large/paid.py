"""What was paid for: answers and spending in one SQLite file, so that nothing is paid twice and no budget is passed.

Every answer is committed as it comes. A call counts from the moment it is sent: what became of one that never came
back is unknown, and whatever a server may have charged for is taken as charged.
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

    `path` None keeps both in memory. Raises ArtefactError when the file cannot be used. Threads may share an instance.
    """

    def __init__(
        self, path: Path | None, account: str, *, max_calls: int | None = None, max_cost: float | None = None
    ) -> None:
        self._account, self._max_calls, self._max_cost = account, max_calls, max_cost
        self._lock = threading.Lock()
        self._path = path
        with self._explained():
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(path or ":memory:", timeout=30, check_same_thread=False)
            self._database.executescript(_SCHEMA)
        self._reserved_calls, self._reserved_cost = 0, 0.0

    def find(self, key: str) -> dict[str, Any] | None:
        """The answer that was paid for, or None."""
        with self._lock, self._explained():
            row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        found: dict[str, Any] = json.loads(row[0])
        return found

    def spent(self) -> tuple[int, float]:
        """Calls and currency spent so far."""
        with self._lock, self._explained():
            return self._spent()

    def reserve(self, most: float) -> None:
        """Set aside a call that may cost up to `most`; BudgetSpent where that could pass the budget."""
        with self._lock, self._explained():
            calls, currency = self._spent()
            if self._max_calls is not None and calls + self._reserved_calls >= self._max_calls:
                raise BudgetSpent(f"the budget is spent: max_calls = {self._max_calls}")
            if self._max_cost is not None and currency + self._reserved_cost + most > self._max_cost:
                raise BudgetSpent(f"the budget is spent: max_cost = {self._max_cost:g}, {currency:g} so far")
            self._reserved_calls += 1
            self._reserved_cost += most

    def release(self, most: float) -> None:
        """Give back what was set aside for a call that was refused, and so costs nothing."""
        with self._lock:
            self._unreserve(most)

    def lose(self, most: float) -> None:
        """Book a call that brought no usable answer, at the most it can have cost."""
        self._book(most, most)

    def keep(self, key: str, answer: dict[str, Any], most: float, currency: float) -> None:
        """Commit an answer and what it cost, in place of the `most` that was set aside for it."""
        self._book(most, currency, (key, json.dumps(answer)))

    def _book(self, most: float, currency: float, answer: tuple[str, str] | None = None) -> None:
        with self._lock, self._explained(), self._database:
            if answer is not None:
                self._database.execute("INSERT OR REPLACE INTO answers VALUES (?, ?)", answer)
            self._database.execute(
                "INSERT INTO spending VALUES (?, 1, ?) ON CONFLICT (account) DO UPDATE"
                " SET calls = calls + 1, currency = currency + excluded.currency",
                (self._account, currency),
            )
            self._unreserve(most)

    def _unreserve(self, most: float) -> None:
        self._reserved_calls -= 1
        self._reserved_cost -= most

    def _spent(self) -> tuple[int, float]:
        row = self._database.execute(
            "SELECT calls, currency FROM spending WHERE account = ?", (self._account,)
        ).fetchone()
        return (int(row[0]), float(row[1])) if row else (0, 0.0)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise ArtefactError(
                f"cannot use the file of paid answers: {error}", where=str(self._path), mend="Free or repair it"
            ) from error
