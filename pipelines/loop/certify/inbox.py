"""The inbox: the few disagreements of a frozen challenger that are worth a person's label.

What is drawn is written down before anything is shown, with its probability and its place in a frozen order. An item
that is skipped counts as lost. The look that the labels are for is in the lineage's ledger once, however often one
looks at what they certify so far.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
from pydantic import Field
from sqlalchemy import Connection, select

from kcm.cascade.policy import ESCALATE_ALL, Policy
from kcm.config import Config
from kcm.errors import DataError, KcmError
from kcm.inputs.tables import missing_column, read_frame
from pipelines.loop.certify.labels import LabelDraw, drawn_items, label_tests
from pipelines.serve.log.database import Database, LogUnavailableError
from pipelines.serve.log.inbox import (
    AskedFor,
    InboxItem,
    State,
    draw_items,
    inbox_items,
    inbox_states,
    item_of,
    open_inbox,
    store_answers,
)
from pipelines.serve.log.standing import LabelTest, Standing, standing_of
from pipelines.serve.log.tables import INBOX

COLUMNS = ("id", "text", "task", "label", "skip")  # of the file for teams that label elsewhere
_YES, _NO = ("1", "true", "yes", "x"), ("", "0", "false", "no")
_SHOWN = 3


class InboxPlan(Config):
    """What a challenger's labels are drawn for, frozen before the first is seen."""

    attempt: str = Field(description="Names the draw, and the look in the ledger.")
    application: str
    version: str = Field(description="The challenger, NAME/NUMBER.")
    policy: Policy = Field(description="The one that the search found, which the labels are to certify.")
    labels: tuple[str, ...] = Field(description="The labels that may be given.")
    probability: float = Field(1.0, gt=0, le=1, description="That of an audited disagreement being drawn.")
    floor: float = Field(gt=0, le=1, description="The least audit share of the window.")
    epsilon: float = Field(gt=0, lt=1, description="Accuracy that may be lost against large-only.")
    delta: float = Field(gt=0, lt=1, description="What the look may spend.")

    @property
    def draw(self) -> LabelDraw:
        """How its items are drawn."""
        return LabelDraw(self.attempt, self.probability)


class GivenLabels(Config):
    """What people said of an inbox by the time that its labels sufficed: all that a labelled certificate rests on."""

    plan: InboxPlan
    answers: dict[str, tuple[State, str | None, float]] = Field(
        description="State, label and probability by `request id/item`."
    )

    def of(self, judged: pa.Table) -> pa.Table:
        """The certify decisions [N] with these labels."""
        return with_inbox(judged, {item_of(each): answer for each, answer in self.answers.items()})


class Inbox:
    """The inbox of a plan in the log at `url`.

    `judged` [N] holds the window's certify decisions as the log's reader gave them, without payload, with the
    challenger's gate scores and answers. Raises KcmError where the log cannot be used; nothing is half stored.
    """

    def __init__(
        self,
        url: str,
        plan: InboxPlan,
        judged: pa.Table,
        scores: Sequence[float],
        small_labels: Sequence[str],
        timeout_s: float = 60.0,
    ) -> None:
        self.plan, self._judged = plan, judged
        self._scores, self._small_labels = scores, list(small_labels)
        self._url, self._database = url, Database(url, timeout_s)

    def close(self) -> None:
        """Let go of all connections."""
        self._database.close()

    def fill(self) -> int:
        """Write down all that is drawn, and give the number of items; a second time changes nothing."""
        plan = self.plan
        items = drawn_items(
            self._judged, self._scores, self._small_labels, plan.policy, floor=plan.floor, labels=plan.draw
        )
        rows = [
            {
                "request_id": each.request_id,
                "item": each.item,
                "probability": each.probability,
                "position": each.position,
                "small_label": each.small_label,
            }
            for each in items
        ]
        with self._writing() as connection:
            draw_items(connection, plan.application, plan.attempt, rows)
        return len(rows)

    def ask(self) -> None:
        """Let the service ask people for these labels, and for those of no other inbox of the application."""
        plan = self.plan
        with self._writing() as connection:
            asked = AskedFor(plan.attempt, plan.version, plan.labels, self.tests)
            open_inbox(connection, plan.application, asked)

    def items(self, state: State | None = None, limit: int | None = None) -> list[InboxItem]:
        """The items in their order, those in `state` where one is given, `limit` at the most."""
        with self._reading() as connection:
            return inbox_items(connection, self.plan.application, self.plan.attempt, state, limit)

    def answer(self, answers: Mapping[str, str | None]) -> None:
        """Store what a person said of items by their ids: a label, or None for one that is skipped.

        Raises DataError for ids that are not in the inbox and labels outside the list, and stores nothing then.
        """
        known = self._ids()
        unknown = [each for each in answers if each not in known]
        strange = [f"{each}: {label!r}" for each, label in answers.items() if label and label not in self.plan.labels]
        _refuse(unknown, "not in the inbox", "Only what was drawn is labelled here; the service takes others")
        _refuse(strange, "not in the list of labels", f"Known are {', '.join(self.plan.labels[:20])}")
        with self._writing() as connection:
            store_answers(connection, self.plan.application, self.plan.attempt, answers)

    @cached_property
    def tests(self) -> tuple[LabelTest, ...]:
        """What the labels are to certify."""
        plan = self.plan
        return tuple(
            label_tests(
                with_inbox(self._judged, {}),
                self._scores,
                self._small_labels,
                plan.policy,
                plan.epsilon,
                floor=plan.floor,
                delta=plan.delta,
                labels=plan.draw,
            )
        )

    def standing(self) -> Standing:
        """What the labels so far certify."""
        return standing_of(self.tests, self._labels())

    def certified_policy(self) -> Policy:
        """The policy that the labels so far certify: the searched one, or one that keeps less."""
        plan, states = self.plan, self._labels()
        found = {test.task: test.certified(states) for test in self.tests}
        own = {task: found.get(task, ESCALATE_ALL) for task in plan.policy.task_decisions}
        return plan.policy.model_copy(update={"decision": found.get(None, ESCALATE_ALL), "task_decisions": own})

    def _labels(self) -> dict[str, tuple[State, str | None]]:
        with self._reading() as connection:
            return inbox_states(connection, self.plan.application, self.plan.attempt)

    def given(self) -> GivenLabels:
        """The labels as they stand, for `certify_window`."""
        answers = {f"{request}/{item}": answer for (request, item), answer in self._states().items()}
        return GivenLabels(plan=self.plan, answers=answers)

    def export(self, path: Path) -> int:
        """Write all items as CSV for labelling elsewhere, and give their number; pictures are named by their ids."""
        items = self.items()
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            for each in items:
                skip = "yes" if each.state == "skipped" else ""
                writer.writerow([each.id, each.text or "", each.task or "", each.label or "", skip])
        return len(items)

    def take(self, path: Path) -> int:
        """Store the labels of a CSV file as `export` writes it, and give their number.

        A row with neither label nor skip is left as it is. Raises DataError for whatever cannot be stored, and stores
        nothing then.
        """
        frame = read_frame(path, (".csv", ".tsv"))
        for column in ("id", "label"):
            if column not in frame.columns:
                raise missing_column(column, "inbox", list(frame.columns), str(path))
        skips = frame["skip"] if "skip" in frame else pd.Series("", index=frame.index)
        answers: dict[str, str | None] = {}
        for each, label, skip in zip(*(_cells(column) for column in (frame["id"], frame["label"], skips)), strict=True):
            if skip.lower() not in (*_YES, *_NO):
                raise DataError(f"skip = {skip!r} of {each}", where=str(path), hint="Write yes, or leave it empty")
            skipped = skip.lower() in _YES
            if skipped and label:
                raise DataError(f"{each} is labelled and skipped", where=str(path), hint="Choose one")
            if answers.get(each, label or None) != (label or None):
                raise DataError(f"{each} occurs twice with two labels", where=str(path), hint="Keep one of them")
            if skipped or label:
                answers[each] = label or None
        self.answer(answers)
        return len(answers)

    def _ids(self) -> set[str]:
        return {f"{request}/{item}" for request, item in self._states()}

    def _states(self) -> dict[tuple[str, int], tuple[State, str | None, float]]:
        """State, label and probability by item."""
        i = INBOX.c
        with self._reading() as connection:
            rows = connection.execute(
                select(i.request_id, i.item, i.state, i.label, i.probability).where(*self._mine())
            ).all()
        return {(request, item): (state, label, rho) for request, item, state, label, rho in rows}

    def _mine(self) -> tuple[Any, ...]:
        return INBOX.c.application == self.plan.application, INBOX.c.attempt == self.plan.attempt

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._database.reading() as connection:
                yield connection
        except LogUnavailableError as error:
            raise KcmError(f"the log cannot be read: {error}", where=self._url) from error

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        try:
            with self._database.writing() as connection:
                yield connection
        except LogUnavailableError as error:
            raise KcmError(f"the log cannot be written: {error}", where=self._url, hint="Nothing was stored") from error


def with_inbox(window: pa.Table, states: Mapping[tuple[str, int], tuple[State, str | None, float]]) -> pa.Table:
    """The window [N] with state, label and probability of its items in an inbox."""
    items = zip(window["request_id"].to_pylist(), window["item"].to_pylist(), strict=True)
    state, label, rho = zip(*(states.get(item, (None, None, None)) for item in items), strict=True) or ((), (), ())
    columns = {
        "inbox_state": pa.array(state, pa.string()),
        "inbox_label": pa.array(label, pa.string()),
        "inbox_probability": pa.array(rho, pa.float64()),
    }
    for name, column in columns.items():
        place = window.column_names.index(name)
        window = window.set_column(place, name, column)
    return window


def _cells(column: pd.Series[Any]) -> list[str]:
    return ["" if pd.isna(cell) else str(cell).strip() for cell in column]


def _refuse(bad: Sequence[str], what: str, hint: str) -> None:
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise DataError(f"{what}: {', '.join(bad[:_SHOWN])}{more}", where="inbox", hint=hint)
