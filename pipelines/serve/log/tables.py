"""The tables of the log, declared once. `log_meta` names their version; older versions are not read."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy import Column, ColumnElement, DateTime, Float, Index, Integer, LargeBinary, String, Table, Text

SCHEMA_VERSION = 4
SCHEMA = sa.MetaData()


class UtcTime(sa.TypeDecorator[datetime]):
    """A time in UTC, even if the database returns it without a zone, as SQLite does."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        """The stored time with its zone."""
        if value is None:
            return None
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


_NAME = String(200)
_HASH = String(64)
_NUMBER = sa.BigInteger().with_variant(Integer, "sqlite")


def _item_table(name: str, *columns: Column[Any]) -> Table:
    """A table with one row per item of a request, however often the request is sent."""
    request_id = Column("request_id", String(128), primary_key=True)
    return Table(name, SCHEMA, request_id, Column("item", Integer, primary_key=True), *columns)


# One row for every answered item, kept ones too. `caller` and `unit` are keyed hashes. `audit_share` is the share of
# kept items that was audited at that moment, `probability` the probability that the large model was asked about this
# item. `state` is the state of its audit: null (not drawn), drawn, answered or lost. `large_label` is the large model's
# answer, of escalated and of audited items. A replica, `writer`, counts its answers in `sequence`. A forgotten item
# keeps its route, probability, state and unit.
DECISIONS = Table(
    "decisions",
    SCHEMA,
    Column("number", _NUMBER, primary_key=True, autoincrement=True),
    Column("application", _NAME, nullable=False),
    Column("request_id", String(128), nullable=False),
    Column("item", Integer, nullable=False),
    Column("client_request_id", String(128)),
    Column("caller", _HASH, nullable=False),
    Column("model_version", _NAME, nullable=False),
    Column("large_identity", _NAME),
    Column("unit", _HASH),
    Column("task", _NAME),
    Column("gate_score", Float),
    Column("small_label", _NAME),
    Column("route", String(20), nullable=False),
    Column("audit_share", Float, nullable=False),
    Column("probability", Float, nullable=False),
    Column("state", String(10)),
    Column("large_label", _NAME),
    Column("large_probabilities", LargeBinary),  # float32, little-endian, in the order of the version's answers
    Column("answered_at", UtcTime, nullable=False),
    Column("writer", String(32), nullable=False),
    Column("sequence", sa.BigInteger),
    Column("forgotten_at", UtcTime),
    sa.UniqueConstraint("request_id", "item"),
    sqlite_autoincrement=True,
)
Index("decisions_by_application", DECISIONS.c.application, DECISIONS.c.number)
Index(
    "decisions_by_version",
    *(
        DECISIONS.c.application,
        DECISIONS.c.model_version,
        DECISIONS.c.state,
        DECISIONS.c.audit_share,
        DECISIONS.c.route,
    ),
)
_FORGOTTEN = sa.text("forgotten_at IS NOT NULL")
Index("decisions_forgotten", DECISIONS.c.application, sqlite_where=_FORGOTTEN, postgresql_where=_FORGOTTEN)
# Stored inputs: `features` are float32, little-endian. An empty row marks a forgotten input.
PAYLOADS = _item_table(
    "payloads",
    Column("application", _NAME, nullable=False),
    Column("text", Text),
    Column("image", LargeBinary),
    Column("features", LargeBinary),
    Column("num_bytes", sa.BigInteger, nullable=False),
    Column("stored_at", UtcTime, nullable=False),
)
Index("payloads_by_age", PAYLOADS.c.application, PAYLOADS.c.stored_at, PAYLOADS.c.num_bytes)
# Labels that callers volunteered. `new`: the version that answers by then does not know the label.
FEEDBACK = _item_table(
    "feedback",
    Column("label", _NAME),
    Column("text", Text),
    Column("task", _NAME),
    Column("received_at", UtcTime, nullable=False),
    Column("caller", _HASH, nullable=False),
    Column("new", sa.Boolean),
)
Index("feedback_by_caller", FEEDBACK.c.caller, FEEDBACK.c.received_at)
# Evidence of new classes that a replica has gathered: the wealth of an e-process.
NOVELTY = Table(
    "novelty",
    SCHEMA,
    Column("application", _NAME, primary_key=True),
    Column("model_version", _NAME, primary_key=True),
    Column("writer", String(32), primary_key=True),
    Column("e_value", Float, nullable=False),
    Column("updated_at", UtcTime, nullable=False),
)
# The state of a version. `refuted_at`: when its certificate was refuted, by decisions up to `refuted_upto`.
# `alarms` is the state of its alarms. Older logs also have the columns `holder` and `held_until`.
VERSIONS = Table(
    "versions",
    SCHEMA,
    Column("application", _NAME, primary_key=True),
    Column("model_version", _NAME, primary_key=True),
    Column("refuted_at", UtcTime),
    Column("refuted_upto", sa.BigInteger),
    Column("revision", sa.BigInteger, nullable=False, server_default="0"),
    Column("alarms", sa.JSON),
)
# One row: the version of these tables, and the key of the hashes.
META = Table(
    "log_meta",
    SCHEMA,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("key", _HASH, nullable=False),
)


def of_items(table: Table, items: Sequence[tuple[str, int]]) -> ColumnElement[bool]:
    """The rows of these items of requests."""
    return sa.tuple_(table.c.request_id, table.c.item).in_(items)


def counted_labels(connection: sa.Connection, where: ColumnElement[bool], max_share: float) -> sa.Subquery:
    """The labels of the decisions that `where` selects, by request_id and item, without those beyond a caller's share.

    From each caller, the first c labels count, for the largest c at which no caller contributes more than `max_share`
    of them, whatever callers claim about groups or tasks. With fewer than 1 / `max_share` callers none count, except
    that a single caller's labels all count. The order is random: it follows the request ids, which the service
    generates.
    """
    f = FEEDBACK.c
    place = sa.func.row_number().over(partition_by=f.caller, order_by=(f.request_id, f.item))
    source = FEEDBACK.join(DECISIONS, same_item(FEEDBACK, DECISIONS))
    labels = sa.select(f.request_id, f.item, f.label).select_from(source).where(where, f.label.is_not(None))
    if max_share == 1:
        return labels.subquery("counted")
    own = labels.with_only_columns(sa.func.count()).group_by(f.caller)
    cap = _cap(sorted(connection.scalars(own)), max_share)
    ranks = labels.add_columns(place.label("place")).cte("given")
    return sa.select(ranks.c.request_id, ranks.c.item, ranks.c.label).where(ranks.c.place <= cap).subquery("counted")


def _cap(counts: Sequence[int], max_share: float) -> float:
    """The most labels per caller that count: the largest c with c <= s * sum of min(n, c) over the callers.

    Let S_m be the sum of the m smallest of the k label counts. The sum of min(n, c) is the least S_m + (k - m) c over
    m, so c is the least s S_m / (1 - s (k - m)) over all m with s (k - m) < 1.
    """
    if len(counts) < 2:
        return sum(counts)
    if len(counts) * max_share < 1 - _ROUNDING:
        return 0
    shares_left = ((m, 1 - (len(counts) - m) * max_share) for m in range(1, len(counts) + 1))
    return min(sum(counts[:m]) * max_share / left for m, left in shares_left if left > _ROUNDING) + _ROUNDING


_ROUNDING = 1e-9  # rounding error allowed in a share


def same_item(left: sa.FromClause, right: sa.FromClause) -> ColumnElement[bool]:
    """The condition that rows of two tables are about the same item."""
    return sa.and_(left.c.request_id == right.c.request_id, left.c.item == right.c.item)


def counted(connection: sa.Connection, by: Column[Any], table: Table, where: ColumnElement[bool]) -> dict[Any, int]:
    """Rows of a table by the values of a column, the most frequent value first."""
    source = DECISIONS if table is DECISIONS else DECISIONS.join(table, same_item(DECISIONS, table))
    query = sa.select(by, sa.func.count()).select_from(source).where(where).group_by(by)
    return {value: int(number) for value, number in connection.execute(query.order_by(sa.func.count().desc(), by))}
