"""Labels from annotators, for items drawn with known probabilities; callers' own labels are stored separately."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import select, update

from kcm.sql import insert
from pipelines.serve.log.database import Database
from pipelines.serve.log.entries import utc_now
from pipelines.serve.log.tables import DECISIONS, FEEDBACK, same_item

ASKED = "kcm labels"  # the caller of these labels, which is no hash of a name


class LabelLog(Database):
    """Stores and reads labels by item id, `request id/item`. Every call may raise LogUnavailableError."""

    def store(self, labels: Mapping[str, str | None], probabilities: Mapping[str, float]) -> None:
        """Commit the label of each item (None if it was skipped), or store nothing.

        `probabilities` are the probabilities with which the items were drawn. The latest label of an item counts.
        """
        f = FEEDBACK.c
        with self.writing() as connection:
            for name, label in labels.items():
                request_id, _, item = name.rpartition("/")
                item_key = {"request_id": request_id, "item": int(item)}
                row = {"label": label, "probability": probabilities[name], "caller": ASKED, "received_at": utc_now()}
                is_item = (f.request_id == request_id) & (f.item == int(item))
                if not connection.execute(update(FEEDBACK).where(is_item).values(row | {"new": None})).rowcount:
                    connection.execute(insert(connection, FEEDBACK), [item_key | row])

    def labels(self) -> dict[str, str | None]:
        """The labels by item; None for a skipped item."""
        f, with_decisions = FEEDBACK.c, FEEDBACK.join(DECISIONS, same_item(DECISIONS, FEEDBACK))
        query = select(f.request_id, f.item, f.label).select_from(with_decisions).where(f.probability.is_not(None))
        with self.reading() as connection:
            rows = connection.execute(query.where(DECISIONS.c.application == self._application)).all()
        return {f"{request_id}/{item}": label for request_id, item, label in rows}

    def forgotten(self) -> set[str]:
        """The items that were deleted from the log."""
        d = DECISIONS.c
        query = select(d.request_id, d.item).where(d.application == self._application, d.forgotten_at.is_not(None))
        with self.reading() as connection:
            return {f"{request_id}/{item}" for request_id, item in connection.execute(query)}
