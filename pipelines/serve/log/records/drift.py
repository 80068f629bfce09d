"""Evidence of drift in the log, from all replicas of a version."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
from sqlalchemy import Connection, delete, select

from kcm.certify.monitoring.drift import ALARM_DELTA
from pipelines.serve.log.database import insert
from pipelines.serve.log.tables import DRIFT

COMBINED = "combined"  # the mean over all quantities, which is an e-process as each of them is
FRESH = datetime.timedelta(hours=1)  # a replica that has written nothing for so long is gone


@dataclass(frozen=True)
class Evidence:
    """The wealth of bets against the limit of a quantity, its largest so far, and the decisions that were bet on."""

    e_value: float
    largest: float
    num_decisions: int


def write_drift(
    connection: Connection, application: str, version: str, writer: str, evidence: Mapping[str, Evidence]
) -> None:
    """Put a replica's evidence in the place of what it wrote before."""
    mine = (DRIFT.c.application == application) & (DRIFT.c.model_version == version) & (DRIFT.c.writer == writer)
    connection.execute(delete(DRIFT).where(mine))
    shared = {"application": application, "model_version": version, "writer": writer}
    shared |= {"updated_at": datetime.datetime.now(datetime.UTC)}  # type: ignore[dict-item]
    rows = [shared | {"quantity": name} | vars(each) for name, each in evidence.items()]
    if rows:
        connection.execute(insert(connection, DRIFT), rows)


def read_drift(connection: Connection, application: str, version: str) -> dict[str, float]:
    """The e-value of each quantity of a version: the mean over its replicas, each of which sees a part of the traffic.

    Empty where no replica has written anything of late.
    """
    since = datetime.datetime.now(datetime.UTC) - FRESH
    mine = (DRIFT.c.application == application) & (DRIFT.c.model_version == version) & (DRIFT.c.updated_at > since)
    rows = pd.DataFrame(
        connection.execute(select(DRIFT.c.quantity, DRIFT.c.e_value).where(mine)).all(), columns=["name", "value"]
    )
    means: dict[str, Any] = rows.groupby("name")["value"].mean().to_dict() if len(rows) else {}
    return means


def drifted(e_values: Mapping[str, float]) -> str | None:
    """Which quantity has drifted the most, where all of them together say that something has."""
    if e_values.get(COMBINED, 1.0) < 1 / ALARM_DELTA:
        return None
    return max((name for name in e_values if name != COMBINED), key=lambda name: e_values[name])
