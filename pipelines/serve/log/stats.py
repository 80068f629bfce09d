"""What the log holds of an application, in numbers: over all, and by the versions that have answered."""

from __future__ import annotations

import datetime
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, func, select

from pipelines.serve.log.tables import DECISIONS, FEEDBACK, INBOX, PAYLOADS, VERSIONS, same_item


def log_stats(connection: Connection, application: str) -> dict[str, Any]:
    """Decisions by version and route, audits and inbox by state, labels, and payloads with their bytes."""
    d, p, f = DECISIONS.c, PAYLOADS.c, FEEDBACK.c
    own = d.application == application
    versions: dict[str, dict[str, int]] = {}
    routes = select(d.model_version, d.route, func.count()).where(own).group_by(d.model_version, d.route)
    for version, route, number in connection.execute(routes.order_by(func.min(d.number))):
        versions.setdefault(version, {})[route] = number
    number, oldest, newest, forgotten = connection.execute(
        select(func.count(), func.min(d.answered_at), func.max(d.answered_at), func.count(d.forgotten_at)).where(own)
    ).one()
    payloads, num_bytes, oldest_payload = connection.execute(
        select(func.count(), func.coalesce(func.sum(p.num_bytes), 0), func.min(p.stored_at)).where(
            p.application == application, p.num_bytes > 0
        )
    ).one()
    labels = _counted(connection, f.new, FEEDBACK, own)
    return {
        "application": application,
        "decisions": number,
        "oldest": _when(oldest),
        "newest": _when(newest),
        "versions": versions,
        "audits": _counted(connection, d.state, DECISIONS, own & d.state.is_not(None)),
        "labels": sum(labels.values()),
        "new_labels": _counted(connection, f.label, FEEDBACK, own & f.new.is_(True)),
        "inbox": _counted(connection, INBOX.c.state, INBOX, INBOX.c.application == application),
        "payloads": {"items": payloads, "bytes": int(num_bytes), "oldest": _when(oldest_payload)},
        "forgotten": forgotten,
    }


def version_facts(connection: Connection, application: str) -> list[dict[str, Any]]:
    """The versions that have answered, the first one first: version, since, until, num_labels and refuted_at.

    Labels are those that callers gave and that the inbox asked for.
    """
    d, v = DECISIONS.c, VERSIONS.c
    own = d.application == application
    answered = select(d.model_version, func.min(d.answered_at), func.max(d.answered_at)).where(own)
    rows = connection.execute(answered.group_by(d.model_version).order_by(func.min(d.number))).all()
    given = _counted(connection, d.model_version, FEEDBACK, own)
    asked = _counted(connection, d.model_version, INBOX, own & INBOX.c.label.is_not(None))
    alarms = connection.execute(select(v.model_version, v.refuted_at).where(v.application == application))
    refuted = dict(alarms.tuples().all())
    return [
        {
            "version": version,
            "since": since,
            "until": until,
            "num_labels": given.get(version, 0) + asked.get(version, 0),
            "refuted_at": refuted.get(version),
        }
        for version, since, until in rows
    ]


def _counted(connection: Connection, by: Column[Any], table: Table, where: ColumnElement[bool]) -> dict[Any, int]:
    """Rows of a table by the values of a column, the most frequent value first."""
    joined = DECISIONS if table is DECISIONS else DECISIONS.join(table, same_item(DECISIONS, table))
    counted = select(by, func.count()).select_from(joined).where(where).group_by(by)
    return {value: int(number) for value, number in connection.execute(counted.order_by(func.count().desc(), by))}


def _when(moment: datetime.datetime | None) -> str | None:
    """A time in UTC, to the second."""
    return f"{moment:%Y-%m-%dT%H:%M:%S}Z" if moment else None
