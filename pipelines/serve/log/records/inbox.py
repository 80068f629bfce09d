"""The inbox as the log holds it: what people are asked about a frozen challenger, and what they have said.

The loop draws the items and writes them down (`pipelines.loop.certify.inbox`); the service asks people about them.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, select, update

from pipelines.serve.log.database import in_utc, insert
from pipelines.serve.log.records.standing import LabelTest, Standing
from pipelines.serve.log.tables import AUDITS, DECISIONS, ESCALATED, INBOX, INBOXES, PAYLOADS

State = Literal["drawn", "labelled", "skipped"]


@dataclass(frozen=True)
class AskedFor:
    """What labels are asked for: the attempt that drew the items, its challenger, and the labels that may be given.

    `tests` are what the labels are to certify; none are known of an inbox that an older version opened.
    """

    attempt: str
    version: str
    labels: tuple[str, ...]
    tests: tuple[LabelTest, ...] = ()


@dataclass(frozen=True)
class InboxItem:
    """An item for a person, `id` being `request id/item`; text and image as far as they are stored.

    `small_label` is the challenger's answer, None of items from before it was kept, `large_label` the large model's.
    """

    id: str
    position: int
    state: State
    label: str | None
    text: str | None
    image: bytes | None
    task: str | None
    answered_at: datetime.datetime
    small_label: str | None
    large_label: str | None


@dataclass(frozen=True)
class InboxView:
    """The first open items of an inbox, how many items there are in each state, and what the labels so far certify."""

    asked: AskedFor
    items: list[InboxItem]
    counts: dict[State, int]
    standing: Standing | None = None


class UnknownItemError(Exception):
    """The item is not in the inbox; nothing was stored."""


class UnknownLabelError(Exception):
    """The label is not in the inbox's list; nothing was stored."""


class AnsweredError(Exception):
    """The item has been answered otherwise; nothing was stored."""


def open_inbox(connection: Connection, application: str, asked: AskedFor) -> None:
    """Let people be asked for these labels, and for no others of the application."""
    close_inboxes(connection, application)
    i = INBOXES.c
    named = {"application": application, "attempt": asked.attempt}
    tests = [test.model_dump(mode="json") for test in asked.tests]
    row = named | {"model_version": asked.version, "labels": list(asked.labels), "tests": tests, "opened_at": _now()}
    connection.execute(insert(connection, INBOXES), [row])
    again = i.application == application, i.attempt == asked.attempt
    connection.execute(update(INBOXES).where(*again).values(closed_at=None))


def close_inboxes(connection: Connection, application: str) -> None:
    """Let nobody be asked any more: the challenger is none any more."""
    i = INBOXES.c
    connection.execute(
        update(INBOXES).where(i.application == application, i.closed_at.is_(None)).values(closed_at=_now())
    )


def asked_for(connection: Connection, application: str) -> AskedFor | None:
    """The labels that people are asked for; None where no inbox is open."""
    i = INBOXES.c
    chosen = select(i.attempt, i.model_version, i.labels, i.tests)
    chosen = chosen.where(i.application == application, i.closed_at.is_(None))
    row = connection.execute(chosen.order_by(i.opened_at.desc()).limit(1)).first()
    if row is None:
        return None
    tests = tuple(LabelTest.model_validate(each) for each in row.tests or ())
    return AskedFor(row.attempt, row.model_version, tuple(row.labels), tests)


def inbox_items(
    connection: Connection,
    application: str,
    attempt: str,
    state: State | None = None,
    limit: int | None = None,
) -> list[InboxItem]:
    """The items of an inbox in their order, those in `state` where one is given, `limit` at the most."""
    i, d, p, e, a = (table.c for table in (INBOX, DECISIONS, PAYLOADS, ESCALATED, AUDITS))
    joined = INBOX.join(DECISIONS, (d.request_id == i.request_id) & (d.item == i.item))
    for table in (PAYLOADS, ESCALATED, AUDITS):
        joined = joined.outerjoin(table, (table.c.request_id == i.request_id) & (table.c.item == i.item))
    text, large = func.coalesce(p.text, e.text), func.coalesce(a.large_label, e.label)
    known = (i.position, i.state, i.label, text, p.image, d.task, d.answered_at, i.small_label, large)
    chosen = select(i.request_id, i.item, *known).select_from(joined)
    chosen = chosen.where(*_of(application, attempt), *(() if state is None else (i.state == state,)))
    rows = connection.execute(chosen.order_by(i.position).limit(limit)).all()
    return [
        InboxItem(f"{request}/{item}", position, state, label, text, image, task, in_utc(answered_at), small, large)
        for request, item, position, state, label, text, image, task, answered_at, small, large in rows
    ]


def inbox_states(connection: Connection, application: str, attempt: str) -> dict[str, tuple[State, str | None]]:
    """State and label of each item of an inbox, by its id."""
    i = INBOX.c
    rows = connection.execute(select(i.request_id, i.item, i.state, i.label).where(*_of(application, attempt)))
    return {f"{request}/{item}": (state, label) for request, item, state, label in rows}


def inbox_counts(connection: Connection, application: str, attempt: str) -> dict[State, int]:
    """How many items of an inbox are in each state."""
    i = INBOX.c
    found = connection.execute(select(i.state, func.count()).where(*_of(application, attempt)).group_by(i.state)).all()
    counts: dict[State, int] = {"drawn": 0, "labelled": 0, "skipped": 0}
    return counts | {state: int(number) for state, number in found}


def store_answers(connection: Connection, application: str, attempt: str, answers: Mapping[str, str | None]) -> None:
    """Store a label of each item by its id, or None for one that is skipped; ids are those of the inbox."""
    now = _now()
    for each, label in answers.items():
        state = "skipped" if label is None else "labelled"
        this = _of_item(application, attempt, each)
        connection.execute(update(INBOX).where(*this).values(state=state, label=label, labelled_at=now))


def store_answers_once(
    connection: Connection, application: str, answers: Mapping[str, str | None], *, again: bool
) -> None:
    """As `store_answers`, in the open inbox, after a look at what is there.

    Raises UnknownItemError and UnknownLabelError for what was not asked for; unless `again`, AnsweredError for items
    that have another answer: of two people who are asked the same, the second one gets this error.
    """
    asked = asked_for(connection, application)
    for each, label in answers.items():
        if asked is None:
            raise UnknownItemError(each)
        this = _of_item(application, asked.attempt, each)
        row = connection.execute(select(INBOX.c.state, INBOX.c.label).where(*this).with_for_update()).first()
        if row is None:
            raise UnknownItemError(each)
        if label is not None and label not in asked.labels:
            raise UnknownLabelError(each)
        if not again and row.state != "drawn" and row.label != label:
            raise AnsweredError(each)
    if asked:
        store_answers(connection, application, asked.attempt, answers)


def item_of(name: str) -> tuple[str, int]:
    """The item that `request id/item` names."""
    request_id, _, item = name.rpartition("/")
    return request_id, int(item)


def _of(application: str, attempt: str) -> Sequence[Any]:
    return INBOX.c.application == application, INBOX.c.attempt == attempt


def _of_item(application: str, attempt: str, name: str) -> Sequence[Any]:
    request_id, item = item_of(name)
    return *_of(application, attempt), INBOX.c.request_id == request_id, INBOX.c.item == item


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
