"""The inbox: what people are asked about a frozen challenger, and what they have said.

The loop draws the items and opens the inbox; the service asks people about them.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import PlainSerializer
from sqlalchemy import ColumnElement, Connection, select, update

from pipelines.serve.log.database import insert
from pipelines.serve.log.entries import RejectedError, utc_now
from pipelines.serve.log.standing import LabelTest, Standing, standing_of
from pipelines.serve.log.tables import DECISIONS, INBOX, INBOXES, PAYLOADS, same_item

State = Literal["drawn", "labelled", "skipped"]
Picture = Annotated[
    bytes | None, PlainSerializer(lambda image: image and base64.b64encode(image).decode(), return_type=str | None)
]


@dataclass(frozen=True)
class AskedFor:
    """What labels are asked for: the attempt that drew the items, its challenger, and the labels that may be given.

    `tests` are what the labels are to certify.
    """

    attempt: str
    version: str
    labels: tuple[str, ...]
    tests: tuple[LabelTest, ...] = ()


@dataclass(frozen=True)
class InboxItem:
    """An item for a person, `id` being `request id/item`; text and image as far as they are stored.

    `small_label` is the challenger's answer, `large_label` the large model's.
    """

    id: str
    position: int
    state: State
    label: str | None
    text: str | None
    image: Picture
    task: str | None
    answered_at: datetime.datetime
    small_label: str | None
    large_label: str | None


@dataclass(frozen=True)
class InboxView:
    """What people are asked: the challenger, the labels that may be given, and the first open items.

    `version` is None where no labels are asked for. `standing` says what the labels so far certify.
    """

    version: str | None
    labels: tuple[str, ...]
    items: list[InboxItem]
    standing: Standing


def draw_items(connection: Connection, application: str, attempt: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write down what an attempt draws: request_id, item, position, probability and small_label. Once for an item."""
    shared = {"application": application, "attempt": attempt, "drawn_at": utc_now()}
    if rows:
        connection.execute(insert(connection, INBOX), [shared | dict(row) for row in rows])


def open_inbox(connection: Connection, application: str, asked: AskedFor) -> None:
    """Let people be asked for these labels, and for no others of the application."""
    close_inboxes(connection, application)
    key = {"application": application, "attempt": asked.attempt}
    tests = [test.model_dump(mode="json") for test in asked.tests]
    row = {"model_version": asked.version, "labels": list(asked.labels), "tests": tests, "opened_at": utc_now()}
    connection.execute(insert(connection, INBOXES), [key | row])
    this = INBOXES.c.application == application, INBOXES.c.attempt == asked.attempt
    connection.execute(update(INBOXES).where(*this).values(closed_at=None))


def close_inboxes(connection: Connection, application: str) -> None:
    """Let nobody be asked any more: there is no challenger."""
    i = INBOXES.c
    opened = update(INBOXES).where(i.application == application, i.closed_at.is_(None))
    connection.execute(opened.values(closed_at=utc_now()))


def asked_for(connection: Connection, application: str) -> AskedFor | None:
    """The labels that people are asked for; None where no inbox is open."""
    i = INBOXES.c
    opened = select(INBOXES).where(i.application == application, i.closed_at.is_(None))
    row = connection.execute(opened.order_by(i.opened_at.desc()).limit(1)).first()
    if row is None:
        return None
    tests = tuple(LabelTest.model_validate(test) for test in row.tests)
    return AskedFor(row.attempt, row.model_version, tuple(row.labels), tests)


def inbox_view(connection: Connection, application: str, limit: int) -> InboxView:
    """The first open items of the open inbox."""
    asked = asked_for(connection, application)
    if asked is None:
        return InboxView(None, (), [], standing_of((), {}))
    items = inbox_items(connection, application, asked.attempt, "drawn", limit)
    standing = standing_of(asked.tests, inbox_states(connection, application, asked.attempt))
    return InboxView(asked.version, asked.labels, items, standing)


def inbox_items(
    connection: Connection,
    application: str,
    attempt: str,
    state: State | None = None,
    limit: int | None = None,
) -> list[InboxItem]:
    """The items of an inbox in their order, those in `state` where one is given, `limit` at the most."""
    i, d, p = INBOX.c, DECISIONS.c, PAYLOADS.c
    joined = INBOX.join(DECISIONS, same_item(DECISIONS, INBOX)).outerjoin(PAYLOADS, same_item(PAYLOADS, INBOX))
    shown = (i.position, i.state, i.label, p.text, p.image, d.task, d.answered_at, i.small_label, d.large_label)
    chosen = select(i.request_id, i.item, *shown).select_from(joined).where(_of(application, attempt))
    if state is not None:
        chosen = chosen.where(i.state == state)
    rows = connection.execute(chosen.order_by(i.position).limit(limit))
    return [InboxItem(f"{request_id}/{item}", *values) for request_id, item, *values in rows]


def inbox_states(connection: Connection, application: str, attempt: str) -> dict[str, tuple[State, str | None]]:
    """State and label of each item of an inbox, by its id."""
    i = INBOX.c
    rows = connection.execute(select(i.request_id, i.item, i.state, i.label).where(_of(application, attempt)))
    return {f"{request_id}/{item}": (state, label) for request_id, item, state, label in rows}


def store_answers(connection: Connection, application: str, attempt: str, answers: Mapping[str, str | None]) -> None:
    """Store a label of each item by its id, or None for one that is skipped; ids are those of the inbox."""
    for name, label in answers.items():
        values = {"state": "skipped" if label is None else "labelled", "label": label, "labelled_at": utc_now()}
        connection.execute(update(INBOX).where(_of_item(application, attempt, name)).values(values))


def store_answers_once(
    connection: Connection, application: str, answers: Mapping[str, str | None], *, again: bool
) -> None:
    """As `store_answers`, in the open inbox, after a look at what is there.

    Raises RejectedError: 404 for items and 422 for labels that are not asked for; unless `again`, 409 for items that
    have another answer, as the second one of two people gets it who are asked the same.
    """
    asked = asked_for(connection, application)
    for name, label in answers.items():
        row = None
        if asked:
            this = _of_item(application, asked.attempt, name)
            row = connection.execute(select(INBOX.c.state, INBOX.c.label).where(this).with_for_update()).first()
        if asked is None or row is None:
            raise RejectedError(404, f"item {name}: no label of it is asked for; see /v1/labels")
        if label is not None and label not in asked.labels:
            raise RejectedError(422, f"item {name}: the label is not in the list; see /v1/labels")
        if not again and row.state != "drawn" and row.label != label:
            raise RejectedError(409, f"item {name}: it has another answer already; `again` replaces it")
    if asked:
        store_answers(connection, application, asked.attempt, answers)


def item_of(name: str) -> tuple[str, int]:
    """The item that `request id/item` names."""
    request_id, _, item = name.rpartition("/")
    return request_id, int(item)


def _of(application: str, attempt: str) -> ColumnElement[bool]:
    return (INBOX.c.application == application) & (INBOX.c.attempt == attempt)


def _of_item(application: str, attempt: str, name: str) -> ColumnElement[bool]:
    request_id, item = item_of(name)
    return _of(application, attempt) & (INBOX.c.request_id == request_id) & (INBOX.c.item == item)
