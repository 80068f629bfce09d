"""The versions that have answered for an application, and what people said of it."""

from __future__ import annotations

import datetime
from dataclasses import dataclass

from sqlalchemy import Connection, Table, and_, func, select

from pipelines.serve.log.database import in_utc
from pipelines.serve.log.tables import ALARMS, DECISIONS, FEEDBACK, INBOX


@dataclass(frozen=True)
class Tenure:
    """When a version of an application answered, what people said of its items, and when its certificate was refuted.

    `num_labels` are those that callers gave and that the inbox asked for.
    """

    version: str
    since: datetime.datetime
    until: datetime.datetime
    num_labels: int
    refuted_at: datetime.datetime | None


def tenures(connection: Connection, application: str) -> list[Tenure]:
    """The versions that have answered for an application, the first one first."""
    d = DECISIONS.c
    found = select(d.model_version, func.min(d.answered_at), func.max(d.answered_at)).where(
        d.application == application
    )
    rows = connection.execute(found.group_by(d.model_version).order_by(func.min(d.number))).all()
    given, asked = (_labels(connection, table, application) for table in (FEEDBACK, INBOX))
    alarms = select(ALARMS.c.model_version, ALARMS.c.raised_at)
    refuted = {version: in_utc(raised_at) for version, raised_at in connection.execute(alarms)}
    return [
        Tenure(
            version, in_utc(since), in_utc(until), given.get(version, 0) + asked.get(version, 0), refuted.get(version)
        )
        for version, since, until in rows
    ]


def _labels(connection: Connection, table: Table, application: str) -> dict[str, int]:
    """Labels in a table by the version that answered the item."""
    d = DECISIONS.c
    joined = DECISIONS.join(table, and_(d.request_id == table.c.request_id, d.item == table.c.item))
    chosen = select(d.model_version, func.count()).select_from(joined)
    chosen = chosen.where(d.application == application, table.c.label.is_not(None)).group_by(d.model_version)
    return {version: int(number) for version, number in connection.execute(chosen)}
