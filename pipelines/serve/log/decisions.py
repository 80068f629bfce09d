"""The decision log: every answered item and who asked, audits, escalated answers and true labels."""

from __future__ import annotations

import datetime
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import Connection, Table, case, delete, func, literal, select, update

from pipelines.serve.log.database import Database, in_utc, insert, take_turns
from pipelines.serve.log.entries import Decision, Escalated, Event, Feedback, Tally, utc_now
from pipelines.serve.log.records.drift import Evidence, write_drift
from pipelines.serve.log.records.heartbeat import beats
from pipelines.serve.log.records.inbox import (
    InboxView,
    asked_for,
    inbox_counts,
    inbox_items,
    inbox_states,
    store_answers_once,
)
from pipelines.serve.log.records.payloads import as_bytes, expired
from pipelines.serve.log.records.standing import standing_of
from pipelines.serve.log.records.tenures import Tenure, tenures
from pipelines.serve.log.records.watched import Watched, put_watched, take_watch
from pipelines.serve.log.rows import audit_row, decision_row, escalated_row, hashed, payload_row, shadow_row, storable
from pipelines.serve.log.tables import (
    ALARMS,
    AUDITS,
    DECISIONS,
    ESCALATED,
    FAILURES,
    FEEDBACK,
    FORGOTTEN,
    INBOX,
    LOG_KEY,
    PAYLOADS,
    SHADOWS,
    of_items,
)

APPLICATION = "kcm"  # the name of an application that has none


class UnknownRequestError(Exception):
    """No such item was answered for this caller; nothing of the request was stored."""


class NewLabelsError(Exception):
    """The caller has given too many different new labels of late; nothing of the request was stored."""


class ConflictError(Exception):
    """An item has another label already; nothing of the request was stored."""


class DecisionLog:
    """Stores durably or raises LogUnavailableError; every call blocks, for `timeout_s` at most where it must wait.

    What is stored twice under the same request id and item is stored once. Decisions are those of `application`.
    """

    def __init__(self, url: str, timeout_s: float, application: str = APPLICATION) -> None:
        self._database, self._application = Database(url, timeout_s), application
        self._writer = secrets.token_hex(8)

    def open(self) -> None:
        """As `Database.open`."""
        self._database.open()

    def close(self) -> None:
        """As `Database.close`."""
        self._database.close()

    def add_decisions(self, decisions: Sequence[Decision]) -> None:
        """Commit answered items in their order, and the audits that are drawn, before any of these is made."""
        with self._database.writing() as connection:
            take_turns(connection)
            key = log_key(connection)
            shared = {"application": self._application, "writer": self._writer}
            rows = [shared | decision_row(each, key) for each in decisions]
            connection.execute(insert(connection, DECISIONS), rows)
            if drawn := [audit_row(each) for each in decisions if each.drawn_label is not None]:
                connection.execute(insert(connection, AUDITS), drawn)
            if payloads := [payload_row(each, each.payload, self._application) for each in decisions if each.payload]:
                connection.execute(insert(connection, PAYLOADS), payloads)
            if shadows := [shadow_row(each, each.shadow) for each in decisions if each.shadow]:
                connection.execute(insert(connection, SHADOWS), shadows)

    def finish_audits(
        self,
        request_id: str,
        labels: Mapping[int, str | None],
        probabilities: Mapping[int, NDArray[np.floating]] | None = None,
    ) -> None:
        """Commit the large model's label of each drawn item, None where the audit is lost, and known probabilities.

        What is forgotten by now stays so.
        """
        known = {item: as_bytes(probabilities_C) for item, probabilities_C in (probabilities or {}).items()}
        with self._database.writing() as connection:
            for item, label in labels.items():
                answer = {"large_label": label, "large_probabilities": known.get(item)}
                state = "lost" if label is None else "answered"
                this = (AUDITS.c.request_id == request_id) & (AUDITS.c.item == item)
                forgotten = select(FORGOTTEN.c.item).where(of_items(FORGOTTEN, [(request_id, item)])).exists()
                connection.execute(update(AUDITS).where(this, ~forgotten).values(answer | {"state": state}))

    def add_feedback(
        self, request_id: str, caller: str | None, labels: Sequence[Feedback], max_new: int | None = None
    ) -> None:
        """Commit all labels and return, or store none.

        Raises UnknownRequestError unless every item was answered for this very caller, ConflictError where one has
        another label already, and NewLabelsError where the caller would have given more than `max_new` different new
        labels within a day.
        """
        wanted = {label.item: label.label for label in labels}
        new = {label.label for label in labels if label.new}
        with self._database.writing() as connection:
            owner = hashed(caller, log_key(connection))
            issued = select(DECISIONS.c.item).where(
                DECISIONS.c.request_id == request_id, DECISIONS.c.caller == owner, DECISIONS.c.item.in_(list(wanted))
            )
            if missing := wanted.keys() - set(connection.scalars(issued)):
                raise UnknownRequestError(f"item {min(missing)} was not answered for this caller")
            if new and max_new is not None and len(new | _new_labels(connection, owner)) > max_new:
                raise NewLabelsError(f"a caller may give {max_new} new labels within 24 hours")
            shared = {"request_id": request_id, "caller": owner, "received_at": utc_now()}
            connection.execute(insert(connection, FEEDBACK), [storable(shared | asdict(label)) for label in labels])
            stored = select(FEEDBACK.c.item, FEEDBACK.c.label).where(
                FEEDBACK.c.request_id == request_id, FEEDBACK.c.item.in_(list(wanted))
            )
            differing = [item for item, label in connection.execute(stored).all() if wanted[item] != label]
            if differing:
                raise ConflictError(f"item {min(differing)} has another label already")

    def tenures(self) -> list[Tenure]:
        """The versions that have answered, the first one first."""
        with self._database.reading() as connection:
            return tenures(connection, self._application)

    def inbox(self, limit: int) -> InboxView | None:
        """The first open items of the inbox that people are asked about; None where none is open."""
        with self._database.reading() as connection:
            asked = asked_for(connection, self._application)
            if asked is None:
                return None
            named = self._application, asked.attempt
            items, counts = inbox_items(connection, *named, "drawn", limit), inbox_counts(connection, *named)
            states = inbox_states(connection, *named) if asked.tests else {}
        standing = standing_of(asked.tests, states) if asked.tests else None
        return InboxView(asked, items, counts, standing)

    def answer_inbox(self, answers: Mapping[str, str | None], *, again: bool) -> None:
        """Commit what a person says of items of the open inbox, or store none; as `store_answers_once`."""
        with self._database.writing() as connection:
            store_answers_once(connection, self._application, answers, again=again)

    def add_escalated(self, request_id: str, model_version: str, escalated: Sequence[Escalated]) -> None:
        """Commit the answers to escalated items."""
        shared = {"request_id": request_id, "model_version": model_version, "answered_at": utc_now()}
        with self._database.writing() as connection:
            rows = [storable(shared | escalated_row(each)) for each in escalated]
            connection.execute(insert(connection, ESCALATED), rows)

    def add_failure(self, request_id: str, model_version: str, stage: int, status: int) -> None:
        """Commit that a challenger did not answer a request that it took, and the HTTP status of that."""
        row = {
            "request_id": request_id,
            "application": self._application,
            "model_version": model_version,
            "stage": stage,
            "status": status,
            "failed_at": utc_now(),
        }
        with self._database.writing() as connection:
            connection.execute(insert(connection, FAILURES), [row])

    def expire(self, keep_days: float | None, keep_bytes: int | None) -> int:
        """Delete payloads that are too old or too many, STEP of them at most; the number that was deleted."""
        before = None if keep_days is None else utc_now() - datetime.timedelta(days=keep_days)
        with self._database.reading() as connection:
            doomed = expired(connection, self._application, before=before, keep_bytes=keep_bytes)
        if doomed:
            with self._database.writing() as connection:
                connection.execute(delete(PAYLOADS).where(of_items(PAYLOADS, doomed)))
        return len(doomed)

    def beats(self, model_version: str) -> int | None:
        """As `heartbeat.beats`."""
        with self._database.reading() as connection:
            return beats(connection, self._application, model_version)

    def tallies(self, model_version: str) -> list[Tally]:
        """All items that a version answered, counted by what is known of them; audited ones are not counted twice."""
        d, a, f = DECISIONS.c, AUDITS.c, FEEDBACK.c
        count = func.count()
        answered = select(count, d.audit_share, d.route).where(d.model_version == model_version)
        kinds = (d.audit_share, d.route, a.probability, a.state)
        found = (a.small_label == a.large_label, f.label == a.small_label, f.label == a.large_label)
        audited = (
            select(count, *kinds, *found)
            .select_from(
                AUDITS.join(DECISIONS, (a.request_id == d.request_id) & (a.item == d.item)).outerjoin(
                    FEEDBACK, (a.request_id == f.request_id) & (a.item == f.item) & f.new.is_not(True)
                )
            )
            .where(d.model_version == model_version)
        )
        with self._database.reading() as connection:
            totals = {
                (share, route): number
                for number, share, route in connection.execute(answered.group_by(d.audit_share, d.route))
            }
            tallies = [Tally(*row) for row in connection.execute(audited.group_by(*kinds, *found))]
        for tally in tallies:
            totals[tally.audit_share, tally.route] -= tally.number
        return tallies + [Tally(number, share, route) for (share, route), number in totals.items() if number]

    def put_drift(self, model_version: str, evidence: Mapping[str, Evidence]) -> None:
        """Commit what this replica knows of drift by now."""
        with self._database.writing() as connection:
            write_drift(connection, self._application, model_version, self._writer, evidence)

    def events(self, model_version: str, after: int, limit: int, *, label_free: bool) -> list[Event]:
        """Decisions of a version above a number, in order, and what is known of each by now.

        A loss is a disagreement with the large model where `label_free`, else one in which a label says that the large
        model is right. Degraded answers, and those of a time without audits, are left out.
        """
        d, a, f, i = DECISIONS.c, AUDITS.c, FEEDBACK.c, INBOX.c
        differs = (a.state == "answered") & (a.small_label != a.large_label)
        labelled = f.label.is_not(None) | i.label.is_not(None)  # by one of the inboxes that it was drawn for
        lost = differs if label_free else differs & ((f.label == a.large_label) | (i.label == a.large_label))

        def same(other: Any) -> Any:
            return (other.request_id == d.request_id) & (other.item == d.item)

        known = same(f) & f.new.is_not(True)

        def any_row(holds: Any) -> Any:
            return func.coalesce(func.max(case((holds, 1), else_=0)), 0)

        waits_for_label = literal(0) if label_free else any_row(differs) * (1 - any_row(labelled))
        chosen = (
            select(d.number, d.audit_share, any_row(lost), any_row(a.state == "drawn"), waits_for_label, d.answered_at)
            .select_from(DECISIONS.outerjoin(AUDITS, same(a)).outerjoin(FEEDBACK, known).outerjoin(INBOX, same(i)))
            .where(d.model_version == model_version, d.number > after, d.audit_share > 0, d.route != "small_degraded")
            .group_by(d.number, d.audit_share, d.answered_at)
            .order_by(d.number)
            .limit(limit)
        )
        with self._database.reading() as connection:
            return [
                Event(number, share, bool(lost), not (drawn or unlabelled), in_utc(at))
                for number, share, lost, drawn, unlabelled, at in connection.execute(chosen)
            ]

    def take_watch(self, model_version: str, lease: datetime.timedelta) -> Watched:
        """As `watched.take_watch`, for this process and from now on."""
        with self._database.writing() as connection:
            return take_watch(connection, self._application, model_version, self._writer, utc_now(), lease)

    def put_watched(self, model_version: str, revision: int, state: Mapping[str, Any]) -> bool:
        """As `watched.put_watched`, for this process."""
        with self._database.writing() as connection:
            return put_watched(connection, self._application, model_version, self._writer, revision, state)

    def raise_alarm(self, model_version: str, epsilon: float, regret_low: float) -> bool:
        """Commit that a version's certificate is refuted. True where this is the first alarm of the version."""
        last = select(func.max(DECISIONS.c.number)).where(DECISIONS.c.model_version == model_version).scalar_subquery()
        row = {"model_version": model_version, "epsilon": epsilon, "regret_low": regret_low, "raised_at": utc_now()}
        with self._database.writing() as connection:
            alarm = insert(connection, ALARMS).values(row | {"upto": last})
            return connection.execute(alarm.returning(ALARMS.c.model_version)).first() is not None

    def has_alarm(self, model_version: str) -> bool:
        """Whether a version's certificate was ever refuted."""
        with self._database.reading() as connection:
            return bool(connection.scalar(select(func.count()).where(ALARMS.c.model_version == model_version)))

    def read(self, table: Table) -> list[dict[str, Any]]:
        """All rows of a table, in the order of its key."""
        with self._database.reading() as connection:
            key = [column for column in table.c if column.name in ("request_id", "item")] or table.primary_key
            rows = connection.execute(select(table).order_by(*key))
            return [dict(row) for row in rows.mappings()]


def _new_labels(connection: Connection, owner: str) -> set[str]:
    """The new labels that a caller has given within a day."""
    f = FEEDBACK.c
    since = utc_now() - datetime.timedelta(days=1)
    given = select(f.label).where(f.caller == owner, f.new.is_(True), f.received_at > since)
    return set(connection.scalars(given.distinct()))


def log_key(connection: Connection) -> bytes:
    """The log's own key, which was made with its tables."""
    return bytes.fromhex(connection.scalars(select(LOG_KEY.c.value)).one())
