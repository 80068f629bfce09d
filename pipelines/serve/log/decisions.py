"""The decision log as a service uses it: every answered item, its audit, and its true labels."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import (
    ColumnElement,
    Connection,
    Subquery,
    Table,
    and_,
    case,
    delete,
    func,
    literal,
    or_,
    select,
    update,
)

from kcm.sql import insert
from pipelines.serve.log.database import (
    APPLICATION,
    Database,
    erase_content,
    log_key,
    share_numbers,
    take_turns,
)
from pipelines.serve.log.entries import (
    Feedback,
    LabelConflictError,
    LoggedDecision,
    TooManyLabelsError,
    UnknownAnswerError,
    as_bytes,
    hashed,
    storable,
    utc_now,
)
from pipelines.serve.log.tables import (
    DECISIONS,
    FEEDBACK,
    NOVELTY,
    PAYLOADS,
    VERSIONS,
    counted_labels,
    of_items,
    same_item,
)

NOBODY = "forgotten"  # replaces the caller of forgotten items
STEP = 500  # items deleted in one transaction: other writes wait for it


@dataclass(frozen=True)
class Tally:
    """The number of items of a version with the same audit state and outcome.

    `state` is the state of the audit (None without an audit), `agrees` whether both models gave the same label, and
    `small_right` and `large_right` whether their label is the true label. Unknown values are None.
    """

    number: int
    audit_share: float
    route: str
    state: str | None = None
    agrees: bool | None = None
    small_right: bool | None = None
    large_right: bool | None = None


class Event(NamedTuple):
    """A decision as the alarm sees it: `lost` if it is known to be a loss, `final` unless that may still change."""

    number: int
    share: float
    lost: bool
    final: bool
    answered_at: datetime.datetime


@dataclass(frozen=True)
class AlarmRecord:
    """The state of a version's alarms at `revision`."""

    revision: int
    state: Mapping[str, Any]


@dataclass(frozen=True)
class Forgotten:
    """The number of forgotten items, and their units."""

    num_items: int
    units: frozenset[str]


class DecisionLog(Database):
    """Stores durably or raises LogUnavailableError; every call blocks, for at most `timeout_s` if it must wait.

    Storing the same request id and item twice stores it once. All decisions belong to `application`. The labels of one
    caller that watch the certificate are limited by `max_share` (`tables.counted_labels`).
    """

    def __init__(self, url: str, timeout_s: float, application: str = APPLICATION, max_share: float = 1.0) -> None:
        super().__init__(url, timeout_s, application)
        self._max_share = max_share
        self._writer = secrets.token_hex(8)
        self._key: bytes | None = None

    def add_decisions(self, decisions: Sequence[LoggedDecision]) -> None:
        """Commit answered items in their order, with the audits that are drawn, before any of these is made."""
        common = {"application": self._application, "writer": self._writer}
        with self.writing() as connection:
            key = self._key_by(connection)
            share_numbers(connection)
            connection.execute(insert(connection, DECISIONS), [common | decision.row(key) for decision in decisions])
            rows = [row for decision in decisions if (row := decision.payload_row())]
            if rows:
                connection.execute(
                    insert(connection, PAYLOADS), [row | {"application": self._application} for row in rows]
                )

    def finish_audits(
        self,
        request_id: str,
        labels: Mapping[int, str | None],
        probabilities: Mapping[int, NDArray[np.floating]] | None = None,
    ) -> None:
        """Commit the large model's label of each drawn item (None if the audit is lost) and known probabilities.

        Items that were forgotten meanwhile stay forgotten.
        """
        d, by_item = DECISIONS.c, probabilities or {}
        with self.writing() as connection:
            for item, label in labels.items():
                row = (d.request_id == request_id) & (d.item == item) & d.state.is_not(None) & d.forgotten_at.is_(None)
                answer: dict[str, Any] = {"state": "lost" if label is None else "answered", "large_label": label}
                if item in by_item:
                    answer["large_probabilities"] = as_bytes(by_item[item])
                connection.execute(update(DECISIONS).where(row).values(answer))

    def add_feedback(
        self, request_id: str, caller: str | None, labels: Sequence[Feedback], max_new: int | None = None
    ) -> None:
        """Commit all labels and return, or store none.

        Raises UnknownAnswerError unless every item was answered for this caller, LabelConflictError if an item has
        another label already, TooManyLabelsError beyond `max_new` different new labels of the caller within a day.
        """
        d, f = DECISIONS.c, FEEDBACK.c
        label_of = {label.item: label.label for label in labels}
        new = {label.label for label in labels if label.new}
        with self.writing() as connection:
            owner = hashed(caller, self._key_by(connection))
            own = (d.application == self._application) & (d.request_id == request_id) & (d.caller == owner)
            issued = connection.scalars(select(d.item).where(own, d.item.in_(list(label_of))))
            if missing := label_of.keys() - set(issued):
                raise UnknownAnswerError(f"item {min(missing)} was not answered for this caller")
            if new and max_new is not None:
                take_turns(connection, owner)  # or two replicas would each count without the other's labels
                since = utc_now() - datetime.timedelta(days=1)
                names = select(f.label).where(f.caller == owner, f.received_at > since, f.new.is_(True)).distinct()
                if len(new | set(connection.scalars(names))) > max_new:
                    raise TooManyLabelsError(f"a caller may give {max_new} new labels within 24 hours")
            common = {"request_id": request_id, "caller": owner, "received_at": utc_now()}
            connection.execute(insert(connection, FEEDBACK), [storable(common | asdict(label)) for label in labels])
            rows = select(f.item, f.label).where(f.request_id == request_id, f.item.in_(list(label_of)))
            differing = [item for item, label in connection.execute(rows).all() if label_of[item] != label]
            if differing:
                raise LabelConflictError(f"item {min(differing)} has another label already")

    def expire(self, keep_days: float | None, keep_bytes: int | None) -> int:
        """Delete payloads that are too old or too many, at most STEP of them; returns how many."""
        p = PAYLOADS.c
        full = (p.application == self._application) & (p.num_bytes > 0)  # an empty payload marks a forgotten input
        oldest = select(p.request_id, p.item, p.num_bytes, p.stored_at).where(full).order_by(p.stored_at).limit(STEP)
        before = None if keep_days is None else utc_now() - datetime.timedelta(days=keep_days)
        with self.reading() as connection:
            total = int(connection.scalar(select(func.sum(p.num_bytes)).where(full)) or 0)
            rows = connection.execute(oldest).all()
        excess, expired = 0 if keep_bytes is None else total - keep_bytes, []
        for request_id, item, num_bytes, stored_at in rows:
            if excess <= 0 and not (before and stored_at < before):
                break
            expired.append((request_id, item))
            excess -= num_bytes
        if expired:
            with self.writing() as connection:
                connection.execute(delete(PAYLOADS).where(of_items(PAYLOADS, expired)))
        return len(expired)

    def tallies(self, model_version: str) -> list[Tally]:
        """All items that a version answered, counted by audit state and outcome."""
        d = DECISIONS.c
        of_version = and_(d.application == self._application, d.model_version == model_version)
        keys = (d.audit_share, d.route, d.state)
        unaudited = select(func.count(), *keys).where(of_version, d.state.is_(None)).group_by(*keys)
        with self.reading() as connection:
            labels = self._labels(connection, model_version)
            label, source = labels.c.label, DECISIONS.outerjoin(labels, same_item(DECISIONS, labels))
            agreements = (d.small_label == d.large_label, label == d.small_label, label == d.large_label)
            audited = select(func.count(), *keys, *agreements).select_from(source)
            audited = audited.where(of_version, d.state.is_not(None)).group_by(*keys, *agreements)
            audits = [Tally(*row) for row in connection.execute(audited)]
            return audits + [Tally(*row) for row in connection.execute(unaudited)]

    def events(self, model_version: str, after: int, limit: int, *, label_free: bool) -> list[Event]:
        """The decisions of a version above a number, in order, with their outcomes so far.

        A loss is a disagreement with the large model if `label_free`, and otherwise a disagreement in which a label
        says that the large model is right. Degraded answers, and answers given while audits were off, are skipped.
        """
        d, upto = DECISIONS.c, self.last_number()
        differs = (d.state == "answered") & (d.small_label != d.large_label)
        is_loss, pending = differs, d.state == "drawn"
        with self.reading() as connection:
            labels = self._labels(connection, model_version)
            if not label_free:
                is_loss = differs & (labels.c.label == d.large_label)
                pending = or_(pending, differs & labels.c.label.is_(None))
            query = (
                select(d.number, d.audit_share, case((is_loss, 1), else_=0), case((pending, 0), else_=1), d.answered_at)
                .select_from(DECISIONS.outerjoin(labels, same_item(DECISIONS, labels)))
                .where(d.application == self._application, d.model_version == model_version)
                .where(d.number > after, d.number <= upto, d.audit_share > 0, d.route != "small_degraded")
                .order_by(d.number)
                .limit(limit)
            )
            return [
                Event(number, share, bool(is_lost), bool(final), answered_at)
                for number, share, is_lost, final, answered_at in connection.execute(query)
            ]

    def put_novelty(self, model_version: str, e_value: float) -> None:
        """Commit this replica's evidence of new classes, replacing what it wrote before."""
        key = {"application": self._application, "model_version": model_version, "writer": self._writer}
        with self.writing() as connection:
            connection.execute(delete(NOVELTY).where(*(NOVELTY.c[name] == value for name, value in key.items())))
            connection.execute(NOVELTY.insert(), [{**key, "e_value": e_value, "updated_at": utc_now()}])

    def is_refuted(self, model_version: str) -> bool:
        """Whether a version's certificate was ever refuted."""
        v = VERSIONS.c
        is_version = (v.application == self._application) & (v.model_version == model_version)
        with self.reading() as connection:
            return connection.scalar(select(v.refuted_at).where(is_version)) is not None

    def refute(self, model_version: str) -> bool:
        """Commit that a version's certificate is refuted; returns True the first time."""
        d, v = DECISIONS.c, VERSIONS.c
        of_version = (d.application == self._application) & (d.model_version == model_version)
        last = func.coalesce(select(func.max(d.number)).where(of_version).scalar_subquery(), 0)
        with self._version(model_version) as (connection, is_version):
            values = {"refuted_at": utc_now(), "refuted_upto": last}
            return (
                connection.execute(update(VERSIONS).where(is_version, v.refuted_at.is_(None)).values(values)).rowcount
                == 1
            )

    def alarms(self, model_version: str) -> AlarmRecord:
        """The state of a version's alarms."""
        v = VERSIONS.c
        with self._version(model_version) as (connection, is_version):
            row = connection.execute(select(v.revision, v.alarms).where(is_version)).one()
        return AlarmRecord(row.revision, row.alarms or {})

    def put_alarms(self, model_version: str, revision: int, state: Mapping[str, Any]) -> bool:
        """Write the state that replaces `revision`; False, and nothing is written, if that is not the latest."""
        v = VERSIONS.c
        with self._version(model_version) as (connection, is_version):
            statement = update(VERSIONS).where(is_version, v.revision == revision)
            return connection.execute(statement.values(revision=revision + 1, alarms=dict(state))).rowcount == 1

    def forget_caller(self, caller: str) -> Forgotten:
        """Forget all items of a caller, in steps; the deletion is on disk when this returns."""
        with self.reading() as connection:
            owner = hashed(caller, self._key_by(connection))
        return self._forget(DECISIONS.c.caller == owner)

    def forget_request(self, request_id: str, item: int | None = None) -> Forgotten:
        """Forget the items of a request, or one of them; the deletion is on disk when this returns."""
        is_requested = DECISIONS.c.item == item if item is not None else literal(True)
        return self._forget((DECISIONS.c.request_id == request_id) & is_requested)

    def read(self, table: Table) -> list[dict[str, Any]]:
        """All rows of a table, in the order of its key."""
        with self.reading() as connection:
            key = [column for column in table.c if column.name in ("request_id", "item")] or table.primary_key
            rows = connection.execute(select(table).order_by(*key))
            return [dict(row) for row in rows.mappings()]

    def _forget(self, condition: ColumnElement[bool]) -> Forgotten:
        d = DECISIONS.c
        is_present = (d.application == self._application) & d.forgotten_at.is_(None)
        step = select(d.request_id, d.item, d.unit).where(condition, is_present).limit(STEP)
        num_items, units = 0, set()
        while True:
            with self.writing() as connection:
                rows = connection.execute(step).all()
                if rows:
                    _forget_items(connection, [(row.request_id, row.item) for row in rows])
            num_items += len(rows)
            units |= {row.unit for row in rows if row.unit}
            if len(rows) < STEP:
                break
        self.truncate()
        return Forgotten(num_items, frozenset(units))

    def _labels(self, connection: Connection, model_version: str) -> Subquery:
        """The labels of a version's decisions that count; new labels do not."""
        d = DECISIONS.c
        of_version = and_(d.application == self._application, d.model_version == model_version)
        return counted_labels(connection, of_version & FEEDBACK.c.new.is_not(True), self._max_share)

    @contextmanager
    def _version(self, model_version: str) -> Iterator[tuple[Connection, ColumnElement[bool]]]:
        """A transaction on the row of a version, created if needed, with the condition that selects the row."""
        v, key = VERSIONS.c, {"application": self._application, "model_version": model_version}
        with self.writing() as connection:
            connection.execute(insert(connection, VERSIONS), [key])
            yield connection, (v.application == self._application) & (v.model_version == model_version)

    def _key_by(self, connection: Connection) -> bytes:
        self._key = self._key or log_key(connection)
        return self._key


def _forget_items(connection: Connection, items: Sequence[tuple[str, int]]) -> None:
    """Delete the content of items. The decision and an empty payload stay, so that a repeated message is not stored."""
    erase_content(connection)
    fields = ("client_request_id", "gate_score", "small_label", "large_label", "large_probabilities")
    blank: dict[str, Any] = {**dict.fromkeys(fields), "caller": NOBODY, "forgotten_at": utc_now()}
    connection.execute(update(DECISIONS).where(of_items(DECISIONS, items)).values(blank))
    blank = {"text": None, "image": None, "features": None, "num_bytes": 0}
    connection.execute(update(PAYLOADS).where(of_items(PAYLOADS, items)).values(blank))
    connection.execute(delete(FEEDBACK).where(of_items(FEEDBACK, items)))
