"""What is known of a version's promise, kept in the log by the one process that watches it.

A process holds a lease on (application, version), and renews it whenever it writes. The lease saves work; what keeps
the record right is its revision: who writes names the one that it has read, and finds out where another was faster.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from pipelines.serve.log.database import in_utc, insert
from pipelines.serve.log.tables import MONITORS

MOST_LEASE = timedelta(hours=1)


@dataclass(frozen=True)
class Watched:
    """The record of a version: its state by revision `revision`, and whether this process may advance it."""

    revision: int
    state: Mapping[str, Any]
    held: bool


def take_watch(
    connection: Connection, application: str, version: str, holder: str, now: datetime, lease: timedelta
) -> Watched:
    """The record of a version, held by `holder` until now + `lease` unless another process holds it."""
    m = MONITORS.c
    this = (m.application == application) & (m.model_version == version)
    fresh = {"application": application, "model_version": version, "holder": holder, "until": now, "state": {}}
    connection.execute(insert(connection, MONITORS), [fresh])
    row = connection.execute(select(m.holder, m.until, m.revision, m.state).where(this).with_for_update()).one()
    # One that reaches far ahead was written by a clock that has been set right since.
    if row.holder != holder and now < in_utc(row.until) < now + MOST_LEASE:
        return Watched(row.revision, row.state, held=False)
    connection.execute(update(MONITORS).where(this).values(holder=holder, until=now + lease))
    return Watched(row.revision, row.state, held=True)


def put_watched(
    connection: Connection, application: str, version: str, holder: str, revision: int, state: Mapping[str, Any]
) -> bool:
    """Write the state that follows on `revision`; False, and nothing is written, where that is not the last one."""
    m = MONITORS.c
    this = (m.application == application) & (m.model_version == version) & (m.holder == holder)
    done = connection.execute(
        update(MONITORS).where(this, m.revision == revision).values(revision=revision + 1, state=dict(state))
    )
    return done.rowcount == 1
