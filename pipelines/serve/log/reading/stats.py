"""What the log holds of an application, in numbers."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, Table, and_, func, select

from pipelines.serve.log.tables import AUDITS, DECISIONS, FEEDBACK, FORGOTTEN, INBOX, PAYLOADS


def log_stats(connection: Connection, application: str) -> dict[str, Any]:
    """Decisions by version and route, audits and inbox by state, labels, payloads and their bytes, and what is old.

    `older` counts decisions from before applications were named, which belong to none.
    """
    d, p = DECISIONS.c, PAYLOADS.c
    own = d.application == application
    versions: dict[str, dict[str, int]] = {}
    routes = select(d.model_version, d.route, func.count()).where(own).group_by(d.model_version, d.route)
    for version, route, number in connection.execute(routes.order_by(func.min(d.number))):
        versions.setdefault(version, {})[route] = number
    number, oldest, newest = connection.execute(
        select(func.count(), func.min(d.answered_at), func.max(d.answered_at)).where(own)
    ).one()
    payloads, num_bytes, oldest_payload = connection.execute(
        select(func.count(), func.coalesce(func.sum(p.num_bytes), 0), func.min(p.stored_at)).where(
            p.application == application, p.num_bytes > 0
        )
    ).one()
    return {
        "application": application,
        "decisions": number,
        "oldest": _when(oldest),
        "newest": _when(newest),
        "versions": versions,
        "audits": _by_state(connection, AUDITS, own),
        "labels": connection.scalar(select(func.count()).select_from(_joined(FEEDBACK)).where(own)),
        "new_labels": _new_labels(connection, own),
        "inbox": _by_state(connection, INBOX, own),
        "payloads": {"items": payloads, "bytes": int(num_bytes), "oldest": _when(oldest_payload)},
        "forgotten": connection.scalar(select(func.count()).where(FORGOTTEN.c.application == application)),
        "older": connection.scalar(select(func.count()).where(d.application.is_(None))),
    }


def _by_state(connection: Connection, table: Table, own: ColumnElement[bool]) -> dict[str, int]:
    number = func.count().label("number")
    counted = select(table.c.state, number).select_from(_joined(table)).where(own).group_by(table.c.state)
    return {row.state: int(row.number) for row in connection.execute(counted.order_by(table.c.state))}


def _new_labels(connection: Connection, own: ColumnElement[bool]) -> dict[str, int]:
    """Labels that no version knew when they were given, and how often they were."""
    label, number = FEEDBACK.c.label, func.count().label("number")
    counted = select(label, number).select_from(_joined(FEEDBACK)).where(own, FEEDBACK.c.new.is_(True)).group_by(label)
    return {row.label: int(row.number) for row in connection.execute(counted.order_by(number.desc(), label))}


def _joined(table: Table) -> Any:
    same = and_(table.c.request_id == DECISIONS.c.request_id, table.c.item == DECISIONS.c.item)
    return DECISIONS.join(table, same)


def _when(moment: Any) -> str | None:
    """A time in UTC, to the second."""
    return moment and f"{moment:%Y-%m-%dT%H:%M:%S}Z"
