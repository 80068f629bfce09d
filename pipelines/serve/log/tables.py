"""The log's tables, each as it is now; `migrations` state how they came to be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
    tuple_,
)

SCHEMA = MetaData()


def _of_items(name: str, *columns: Column[Any]) -> Table:
    """A table with one row for an item of a request, however often that is sent."""
    request_id = Column("request_id", String(128), primary_key=True)
    return Table(name, SCHEMA, request_id, Column("item", Integer, primary_key=True), *columns)


# Every answered item, kept ones too. `number` grows in the order of commits; `audit_share` is the share that was in
# force, whatever the item's route; `probability` is that of the large model being asked. `caller` and `unit` are keyed
# hashes. A replica, `writer`, counts its answers in `sequence`. While a challenger is tried out, `stage` is that of
# its trial and `seconds` what the request took. What older versions wrote ends at `answered_at`.
DECISIONS = Table(
    "decisions",
    SCHEMA,
    Column("number", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
    Column("request_id", String(128), nullable=False),
    Column("item", Integer, nullable=False),
    Column("client_request_id", String(128)),
    Column("caller", String(64), nullable=False),
    Column("model_version", String(200), nullable=False),
    Column("route", String(20), nullable=False),
    Column("audit_share", Float, nullable=False),
    Column("answered_at", DateTime(timezone=True), nullable=False),
    Column("application", String(200)),
    Column("task", String(200)),
    Column("unit", String(64)),
    Column("gate_score", Float),
    Column("small_label", String(200)),
    Column("probability", Float),
    Column("large_identity", String(200)),
    Column("writer", String(32)),
    Column("sequence", BigInteger),
    Column("stage", Integer),
    Column("seconds", Float),
    UniqueConstraint("request_id", "item"),
    sqlite_autoincrement=True,
)
Index("decisions_by_version", DECISIONS.c.model_version, DECISIONS.c.audit_share, DECISIONS.c.route)
Index("decisions_by_application", DECISIONS.c.application, DECISIONS.c.number)
# What was classified, where it is kept: `features` are float32, little-endian, and so are `large_probabilities` below.
PAYLOADS = _of_items(
    "payloads",
    Column("application", String(200), nullable=False),
    Column("text", Text),
    Column("image", LargeBinary),
    Column("features", LargeBinary),
    Column("num_bytes", BigInteger, nullable=False),
    Column("stored_at", DateTime(timezone=True), nullable=False),
)
Index("payloads_by_age", PAYLOADS.c.application, PAYLOADS.c.stored_at, PAYLOADS.c.num_bytes)
FEEDBACK = _of_items(
    "feedback",
    Column("label", String(200), nullable=False),
    Column("text", Text),
    Column("task", String(200)),
    Column("received_at", DateTime(timezone=True), nullable=False),
    Column("caller", String(64)),  # null in rows from before callers were kept
    Column("new", Boolean),  # whether the version that answers by then does not know the label; null: it does
)
ESCALATED = _of_items(
    "escalated",
    Column("model_version", String(200), nullable=False),
    Column("route", String(20), nullable=False),
    Column("label", String(200), nullable=False),
    Column("probabilities", JSON, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("gate_score", Float, nullable=False),
    Column("cost_s", Float, nullable=False),
    Column("text", Text),  # of rows from before payloads were kept
    Column("task", String(200)),
    Column("answered_at", DateTime(timezone=True), nullable=False),
    Column("large_probabilities", LargeBinary),  # in the order of the version's answers, where they are known
)
AUDITS = _of_items(
    "audits",
    Column("model_version", String(200), nullable=False),
    Column("probability", Float, nullable=False),
    Column("small_label", String(200), nullable=False),
    Column("large_label", String(200)),  # null until the large model has answered, and where it never does
    Column("audited_at", DateTime(timezone=True), nullable=False),
    Column("state", String(10), nullable=False, server_default="drawn"),  # drawn, answered or lost
    Column("large_probabilities", LargeBinary),
)
# Items that a person is asked about, written before they are shown; an attempt draws an item once.
INBOX = _of_items(
    "inbox",
    Column("attempt", String(200), primary_key=True),
    Column("application", String(200), nullable=False),
    Column("probability", Float, nullable=False),
    Column("position", Integer, nullable=False),
    Column("state", String(10), nullable=False, server_default="drawn"),  # drawn, labelled or skipped
    Column("label", String(200)),
    Column("drawn_at", DateTime(timezone=True), nullable=False),
    Column("labelled_at", DateTime(timezone=True)),
    Column("small_label", String(200)),  # what the challenger answers
)
Index("inbox_by_attempt", INBOX.c.application, INBOX.c.attempt, INBOX.c.position)
# What items are drawn for: the challenger, and the labels that may be given.
INBOXES = Table(
    "inboxes",
    SCHEMA,
    Column("application", String(200), primary_key=True),
    Column("attempt", String(200), primary_key=True),
    Column("model_version", String(200), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("opened_at", DateTime(timezone=True), nullable=False),
    Column("closed_at", DateTime(timezone=True)),  # once another challenger has taken its place
    Column("tests", JSON),  # what the labels are to certify
)
# Items whose content was deleted; their units are taken out of memories by the next update.
FORGOTTEN = _of_items(
    "forgotten",
    Column("application", String(200)),
    Column("unit", String(64)),
    Column("forgotten_at", DateTime(timezone=True), nullable=False),
)
# What a challenger would have done with items that the champion answered.
SHADOWS = _of_items(
    "shadows",
    Column("model_version", String(200), nullable=False),
    Column("gate_score", Float, nullable=False),
    Column("small_label", String(200), nullable=False),
    Column("keeps", Boolean, nullable=False),
)
# Requests that a challenger took and did not answer, as far as that is not the caller's fault.
FAILURES = Table(
    "failures",
    SCHEMA,
    Column("request_id", String(128), primary_key=True),
    Column("application", String(200), nullable=False),
    Column("model_version", String(200), nullable=False),
    Column("stage", Integer, nullable=False),
    Column("status", Integer, nullable=False),
    Column("failed_at", DateTime(timezone=True), nullable=False),
)
Index("failures_by_version", FAILURES.c.application, FAILURES.c.model_version)
# Evidence of drift that each replica has gathered about a version: the wealth of an e-process, and its suspicion.
DRIFT = Table(
    "drift",
    SCHEMA,
    Column("application", String(200), primary_key=True),
    Column("model_version", String(200), primary_key=True),
    Column("writer", String(32), primary_key=True),
    Column("quantity", String(40), primary_key=True),
    Column("e_value", Float, nullable=False),
    Column("largest", Float, nullable=False),
    Column("num_decisions", BigInteger, nullable=False),
    Column("updated_at", DateTime(timezone=True), nullable=False),
)
ALARMS = Table(
    "alarms",
    SCHEMA,
    Column("model_version", String(200), primary_key=True),
    Column("epsilon", Float, nullable=False),
    Column("regret_low", Float, nullable=False),
    Column("raised_at", DateTime(timezone=True), nullable=False),
    Column("upto", BigInteger),  # the last decision that may have raised it
)
# Challengers that are tried out, and the heartbeats of the process that tries one out.
TRIALS = Table(
    "trials",
    SCHEMA,
    Column("application", String(200), primary_key=True),
    Column("model_version", String(200), primary_key=True),
    Column("beats", BigInteger, nullable=False, server_default="0"),
)
# What is known of each version's promise: one process advances it, all others read it.
MONITORS = Table(
    "monitors",
    SCHEMA,
    Column("application", String(200), primary_key=True),
    Column("model_version", String(200), primary_key=True),
    Column("holder", String(32), nullable=False),
    Column("until", DateTime(timezone=True), nullable=False),
    Column("revision", BigInteger, nullable=False, server_default="0"),
    Column("state", JSON, nullable=False),
)
LOG_KEY = Table("log_key", SCHEMA, Column("value", String(64), primary_key=True))


def of_items(table: Table, items: Sequence[tuple[str, int]]) -> ColumnElement[bool]:
    """The rows of these items of requests."""
    return tuple_(table.c.request_id, table.c.item).in_(items)
