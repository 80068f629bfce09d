"""The inbox: what people are asked about a frozen challenger, what they have said, and what that certifies so far.

The loop draws the items and opens the inbox; the service asks people about them, and needs no more than the log.
"""

from __future__ import annotations

import base64
import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import PlainSerializer
from sqlalchemy import ColumnElement, Update, select, update

from kcm.cascade.policy import Decision
from kcm.certification.labelled import LabelledTest, LabelledUnits, lowest_certified
from kcm.config import Config
from kcm.sql import insert
from pipelines.serve.log.database import ApplicationLog
from pipelines.serve.log.entries import RejectedError, utc_now
from pipelines.serve.log.tables import DECISIONS, INBOX, INBOXES, PAYLOADS, same_item

State = Literal["drawn", "labelled", "skipped"]
Picture = Annotated[
    bytes | None, PlainSerializer(lambda image: image and base64.b64encode(image).decode(), return_type=str | None)
]


LabelStates = Mapping[str, tuple[str, str | None]]  # state and label of an item by `request id/item`


class DisputedItem(Config):
    """A drawn disagreement: its place in the order of units, and what X of its unit grows by where it is lost.

    `large_label` is None where the large model never answered: no label could tell, and the item is lost.
    """

    id: str
    place: int
    weight: float
    score: float
    small_label: str
    large_label: str | None


class LabelTest(Config):
    """The test of one decision of a challenger's policy: the decision for `task`, or for all requests without one."""

    task: str | None
    decision: Decision
    epsilon: float
    delta: float
    floor: float
    num_units: int
    items: tuple[DisputedItem, ...]
    noise: float = 0.0

    def units(self, states: LabelStates) -> LabelledUnits:
        """What is known by the labels in `states`."""
        outcomes = [
            outcome(*states.get(item.id, ("drawn", None)), item.small_label, item.large_label) for item in self.items
        ]
        return LabelledUnits(
            num_units=self.num_units,
            floor=self.floor,
            place=np.array([item.place for item in self.items], dtype=np.int64),
            weight=np.array([item.weight for item in self.items], dtype=np.float64),
            score=np.array([item.score for item in self.items], dtype=np.float64),
            answered=np.array([answered for answered, _ in outcomes], dtype=bool),
            lost=np.array([lost for _, lost in outcomes], dtype=bool),
            noise=self.noise,
        )

    def num_labels(self, states: LabelStates) -> int:
        """How many of the items a person has labelled or skipped that the large model answered."""
        given = (states.get(item.id, ("drawn", None))[0] for item in self.items if item.large_label is not None)
        return sum(state != "drawn" for state in given)

    def result(self, states: LabelStates) -> LabelledTest:
        """The test at the searched threshold."""
        return LabelledTest(self.units(states), self.epsilon, self.delta)

    def certified(self, states: LabelStates) -> Decision:
        """The searched decision where the labels certify it, else the closest stricter one that they do."""
        lowest = lowest_certified(self.units(states), self.decision.cut, self.epsilon, self.delta)
        return self.decision if lowest == self.decision.cut else Decision.of(lowest)


@dataclass(frozen=True)
class Standing:
    """What the labels so far certify of the searched policy.

    `bound` is the upper end of the accuracy lost, for the worst decision of the policy. `decided` of `num_units` units
    tell something by now; without units labels certify nothing. No further label is needed once `certified`; `stricter`
    says that the labels certify not the searched policy, but one that keeps less. `num_open`, `num_labelled` and
    `num_skipped` count the items.
    """

    certified: bool
    stricter: bool
    bound: float
    epsilon: float
    decided: int
    num_units: int
    num_open: int
    num_labelled: int
    num_skipped: int


def outcome(state: str | None, label: str | None, small: str, large: str | None) -> tuple[bool, bool]:
    """Whether an item has been decided, and whether it is lost: the large side alone is right, or nobody could tell."""
    if large is None:
        return True, True
    return state in ("labelled", "skipped"), state == "skipped" or (label == large and label != small)


def standing_of(tests: Sequence[LabelTest], states: LabelStates) -> Standing:
    """What these labels certify."""
    results = [test.result(states) for test in tests]
    certified = bool(results) and all(result.certified for result in results)
    item_states = [state for state, _ in states.values()]
    return Standing(
        certified=certified,
        stricter=not certified and any(test.certified(states).decision != "escalate_all" for test in tests),
        bound=max((result.bound for result in results), default=0.0),
        epsilon=max((test.epsilon for test in tests), default=0.0),
        decided=sum(result.num_decided for result in results),
        num_units=sum(result.num_units for result in results),
        num_open=item_states.count("drawn"),
        num_labelled=item_states.count("labelled"),
        num_skipped=item_states.count("skipped"),
    )


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


class InboxLog(ApplicationLog):
    """The inboxes of an application in the log: of each attempt that asked for labels, and one that may be open."""

    def draw_items(self, attempt: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write down what an attempt draws: request_id, item, position, probability, small_label. Once for an item."""
        shared = {"application": self._application, "attempt": attempt, "drawn_at": utc_now()}
        if rows:
            with self.writing() as connection:
                connection.execute(insert(connection, INBOX), [shared | dict(row) for row in rows])

    def open_inbox(self, asked: AskedFor) -> None:
        """Let people be asked for these labels, and for no others of the application."""
        key = {"application": self._application, "attempt": asked.attempt}
        tests = [test.model_dump(mode="json") for test in asked.tests]
        row = {"model_version": asked.version, "labels": list(asked.labels), "tests": tests, "opened_at": utc_now()}
        with self.writing() as connection:
            connection.execute(self._closing())
            connection.execute(insert(connection, INBOXES), [key | row])
            this = INBOXES.c.application == self._application, INBOXES.c.attempt == asked.attempt
            connection.execute(update(INBOXES).where(*this).values(closed_at=None))

    def close_inboxes(self) -> None:
        """Let nobody be asked any more: there is no challenger."""
        with self.writing() as connection:
            connection.execute(self._closing())

    def asked_for(self) -> AskedFor | None:
        """The labels that people are asked for; None where no inbox is open."""
        i = INBOXES.c
        opened = select(INBOXES).where(i.application == self._application, i.closed_at.is_(None))
        with self.reading() as connection:
            row = connection.execute(opened.order_by(i.opened_at.desc()).limit(1)).first()
        if row is None:
            return None
        tests = tuple(LabelTest.model_validate(test) for test in row.tests)
        return AskedFor(row.attempt, row.model_version, tuple(row.labels), tests)

    def inbox(self, limit: int) -> InboxView:
        """The first open items of the open inbox."""
        if (asked := self.asked_for()) is None:
            return InboxView(None, (), [], standing_of((), {}))
        standing = standing_of(asked.tests, self.inbox_states(asked.attempt))
        return InboxView(asked.version, asked.labels, self.inbox_items(asked.attempt, "drawn", limit), standing)

    def inbox_items(self, attempt: str, state: State | None = None, limit: int | None = None) -> list[InboxItem]:
        """The items of an inbox in their order, those in `state` where one is given, `limit` at the most."""
        i, d, p = INBOX.c, DECISIONS.c, PAYLOADS.c
        joined = INBOX.join(DECISIONS, same_item(DECISIONS, INBOX)).outerjoin(PAYLOADS, same_item(PAYLOADS, INBOX))
        shown = (i.position, i.state, i.label, p.text, p.image, d.task, d.answered_at, i.small_label, d.large_label)
        chosen = select(i.request_id, i.item, *shown).select_from(joined).where(self._of(attempt))
        if state is not None:
            chosen = chosen.where(i.state == state)
        with self.reading() as connection:
            rows = connection.execute(chosen.order_by(i.position).limit(limit)).all()
        return [InboxItem(f"{request_id}/{item}", *values) for request_id, item, *values in rows]

    def inbox_states(self, attempt: str) -> dict[str, tuple[State, str | None]]:
        """State and label of each item of an inbox, by its id."""
        i = INBOX.c
        chosen = select(i.request_id, i.item, i.state, i.label).where(self._of(attempt))
        with self.reading() as connection:
            rows = connection.execute(chosen).all()
        return {f"{request_id}/{item}": (state, label) for request_id, item, state, label in rows}

    def answer_inbox(self, answers: Mapping[str, str | None], *, again: bool, asked: AskedFor | None = None) -> None:
        """Commit a label of each item by its id, or None for one that is skipped, or store none.

        `asked` is the inbox, by default the open one. Raises RejectedError: 404 for items and 422 for labels that are
        not asked for; unless `again`, 409 for items that have another answer, as the second one of two people gets it
        who are asked the same.
        """
        asked = asked or self.asked_for()
        known = self.inbox_states(asked.attempt) if asked else {}
        with self.writing() as connection:
            for name, label in answers.items():
                if asked is None or name not in known:
                    raise RejectedError(404, f"item {name}: no label of it is asked for")
                if label is not None and label not in asked.labels:
                    raise RejectedError(422, f"item {name}: {label!r} is not in the list of labels")
                request_id, item = item_of(name)
                this = self._of(asked.attempt) & (INBOX.c.request_id == request_id) & (INBOX.c.item == item)
                if not again:
                    this &= (INBOX.c.state == "drawn") | INBOX.c.label.is_not_distinct_from(label)
                values = {"state": "skipped" if label is None else "labelled", "label": label, "labelled_at": utc_now()}
                if not connection.execute(update(INBOX).where(this).values(values)).rowcount:
                    raise RejectedError(409, f"item {name}: it has another answer already; `again` replaces it")

    def _of(self, attempt: str) -> ColumnElement[bool]:
        return (INBOX.c.application == self._application) & (INBOX.c.attempt == attempt)

    def _closing(self) -> Update:
        i = INBOXES.c
        opened = update(INBOXES).where(i.application == self._application, i.closed_at.is_(None))
        return opened.values(closed_at=utc_now())


def item_of(name: str) -> tuple[str, int]:
    """The item that `request id/item` names."""
    request_id, _, item = name.rpartition("/")
    return request_id, int(item)
