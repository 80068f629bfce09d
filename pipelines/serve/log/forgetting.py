"""Deletion: what was classified and what was said of it goes, the decision stays as a number without content."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, delete, or_, select, update

from pipelines.serve.log.database import Database, erase_content, insert
from pipelines.serve.log.decisions import log_key
from pipelines.serve.log.rows import hashed
from pipelines.serve.log.tables import AUDITS, DECISIONS, FORGOTTEN, PAYLOADS, SCHEMA, of_items

STEP = 500  # items that are forgotten in one transaction: other writes wait for it
NOBODY = "forgotten"  # the caller of what is forgotten

# What stays of an item: its decision, the state of its audit, a payload without content, so that one that is sent again
# is not stored again, and that it is forgotten. Rows of every other table go.
_KEPT = (DECISIONS, AUDITS, PAYLOADS, FORGOTTEN)
_PURGED: Sequence[Table] = [
    table for table in SCHEMA.tables.values() if {"request_id", "item"} <= {*table.c.keys()} and table not in _KEPT
]


@dataclass(frozen=True)
class Forgotten:
    """How many items were forgotten, and the units that they are of."""

    num_items: int
    units: frozenset[str]


def forget_caller(database: Database, application: str, caller: str) -> Forgotten:
    """Forget all items of a caller, in steps; what is forgotten is on disk when it returns."""
    with database.reading() as connection:
        owner = hashed(caller, log_key(connection))
    return _forget(database, application, DECISIONS.c.caller == owner)


def forget_request(database: Database, application: str, request_id: str, item: int | None = None) -> Forgotten:
    """Forget the items of a request, or one of them; what is forgotten is on disk when it returns."""
    chosen = DECISIONS.c.request_id == request_id
    return _forget(database, application, chosen if item is None else chosen & (DECISIONS.c.item == item))


def _forget(database: Database, application: str, chosen: ColumnElement[bool]) -> Forgotten:
    d = DECISIONS.c
    # Rows from before applications were named may be of this one.
    own = or_(d.application == application, d.application.is_(None))
    left = select(d.request_id, d.item, d.application, d.unit).where(chosen, own, d.caller != NOBODY).limit(STEP)
    num_items, units = 0, set()
    while True:
        with database.writing() as connection:
            rows = connection.execute(left).all()
            if rows:
                _forget_items(connection, rows)
        num_items += len(rows)
        units |= {row.unit for row in rows if row.unit}
        if len(rows) < STEP:
            break
    database.truncate()
    return Forgotten(num_items, frozenset(units))


def _forget_items(connection: Connection, rows: Sequence[Any]) -> None:
    items = [(row.request_id, row.item) for row in rows]
    erase_content(connection)
    now = datetime.datetime.now(datetime.UTC)
    connection.execute(insert(connection, FORGOTTEN), [{**row._mapping, "forgotten_at": now} for row in rows])
    blank: dict[Table, dict[str, Any]] = {
        DECISIONS: {"caller": NOBODY, "client_request_id": None, "gate_score": None, "small_label": None},
        AUDITS: {"small_label": "", "large_label": None, "large_probabilities": None},
        PAYLOADS: {"text": None, "image": None, "features": None, "num_bytes": 0},
    }
    for table, values in blank.items():
        connection.execute(update(table).where(of_items(table, items)).values(values))
    for table in _PURGED:
        connection.execute(delete(table).where(of_items(table, items)))
