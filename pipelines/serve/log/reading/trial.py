"""What the log holds of a challenger that is being tried out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sqlalchemy import func, select

from kcm.certify.monitoring.trial import Requests
from pipelines.serve.log.database import Database
from pipelines.serve.log.records.heartbeat import beat
from pipelines.serve.log.tables import AUDITS, DECISIONS, ESCALATED, FAILURES, SHADOWS

_COLUMNS = (
    *("number", "request_id", "stage", "seconds", "route", "share", "version", "label", "state", "large"),
    *("escalated", "shadow_keeps", "shadow_label"),
)


@dataclass(frozen=True, eq=False)
class Trial:
    """The requests of a trial, by who answered them.

    `champion`: with what the challenger, as their shadow, would have lost; `challenger`: those that it took.
    """

    champion: Requests
    challenger: Requests


class TrialLog:
    """Reads the trials of an application; every call blocks, and raises LogUnavailableError."""

    def __init__(self, url: str, application: str, timeout_s: float = 10.0) -> None:
        self._database, self._application = Database(url, timeout_s), application

    def last(self) -> int:
        """The number of the last decision, 0 without any; a trial that begins now comes after it."""
        with self._database.reading() as connection:
            return connection.scalar(select(func.max(DECISIONS.c.number))) or 0

    def read(self, after: int, champion: str, challenger: str) -> Trial:
        """The trial of `challenger` beside `champion`, of decisions with numbers above `after`."""
        d, a, e, s = DECISIONS.c, AUDITS.c, ESCALATED.c, SHADOWS.c

        def same(other: Any) -> Any:
            return (other.request_id == d.request_id) & (other.item == d.item)

        decisions = (
            select(
                *(d.number, d.request_id, d.stage, d.seconds, d.route, d.audit_share, d.model_version, d.small_label),
                *(a.state, a.large_label, e.label, s.keeps, s.small_label),
            )
            .select_from(
                DECISIONS.outerjoin(AUDITS, same(a))
                .outerjoin(ESCALATED, same(e))
                .outerjoin(SHADOWS, same(s) & (s.model_version == challenger))
            )
            .where(d.number > after, d.stage.is_not(None), d.model_version.in_([champion, challenger]))
            .where(d.application == self._application)
            .order_by(d.number)
        )
        f = FAILURES.c
        failures = select(f.request_id, f.stage, f.failed_at).where(
            f.application == self._application, f.model_version == challenger
        )
        with self._database.reading() as connection:
            rows = pd.DataFrame(connection.execute(decisions).all(), columns=list(_COLUMNS))
            failed = pd.DataFrame(connection.execute(failures).all(), columns=["request_id", "stage", "failed_at"])
        mine, theirs = rows[rows["version"] == champion], rows[rows["version"] == challenger]
        return Trial(_as_shadow(mine), _with_failures(_as_answered(theirs), failed))

    def renew(self, version: str) -> None:
        """Say that the trial of a version goes on."""
        with self._database.writing() as connection:
            beat(connection, self._application, version)

    def close(self) -> None:
        """Let go of the database."""
        self._database.close()


def _as_answered(rows: pd.DataFrame) -> Requests:
    """Requests by what their answers lost: a kept item, where the large model says otherwise."""
    kept = (rows["route"] == "small").to_numpy(dtype=bool)
    asked = kept & rows["state"].notna().to_numpy(dtype=bool)
    known = asked & ((rows["state"] == "answered") & rows["large"].notna()).to_numpy(dtype=bool)  # not forgotten
    differs = known & (rows["large"] != rows["label"]).to_numpy(dtype=bool)
    return _requests(rows, rows["share"].to_numpy(dtype=np.float64), asked, known, differs)


def _as_shadow(rows: pd.DataFrame) -> Requests:
    """Requests by what the challenger would have lost in the champion's place."""
    escalated = (rows["route"] != "small").to_numpy(dtype=bool)
    keeps = rows["shadow_keeps"].fillna(0).to_numpy(dtype=bool)
    large = rows["large"].where(~escalated, rows["escalated"])
    answered = (rows["state"] == "answered").to_numpy(dtype=bool) | (rows["route"] == "large").to_numpy(dtype=bool)
    asked = keeps & (escalated | rows["state"].notna().to_numpy(dtype=bool))
    known = asked & answered & large.notna().to_numpy(dtype=bool)
    differs = known & (large != rows["shadow_label"]).to_numpy(dtype=bool)
    probability = np.where(escalated, 1.0, rows["share"].to_numpy(dtype=np.float64))
    return _requests(rows, probability, asked, known, differs)


def _requests(
    rows: pd.DataFrame,
    probability: NDArray[np.float64],
    asked: NDArray[np.bool_],
    known: NDArray[np.bool_],
    differs: NDArray[np.bool_],
) -> Requests:
    """Items joined to their requests. A request of a moment without audits counts as audited and lost throughout."""
    share = rows["share"].to_numpy(dtype=np.float64)
    unwatched = share <= 0
    weight = 1 / np.where(asked, np.where(unwatched, 1.0, probability), 1.0)
    items = pd.DataFrame(
        {
            "request": rows["request_id"].to_numpy(),
            "stage": rows["stage"].to_numpy(dtype=np.int64),
            "seconds": rows["seconds"].to_numpy(dtype=np.float64),
            "low": differs * weight,
            "high": np.where(unwatched, 1.0, (differs | (asked & ~known)) * weight),
            "share": np.where(unwatched, 1.0, share),
        }
    )
    grouped = items.groupby("request", sort=False)
    first = grouped[["stage", "seconds", "share"]].first()
    return Requests(
        stage=first["stage"].to_numpy(dtype=np.int64),
        num_items=grouped.size().to_numpy(dtype=np.int64),
        failed=np.zeros(len(first), dtype=bool),
        seconds=first["seconds"].to_numpy(dtype=np.float64),
        lost_low=grouped["low"].mean().to_numpy(dtype=np.float64),
        lost_high=grouped["high"].mean().to_numpy(dtype=np.float64),
        share=first["share"].to_numpy(dtype=np.float64),
    )


def _with_failures(answered: Requests, failed: pd.DataFrame) -> Requests:
    """The requests with those that failed, each among those of its stage."""
    stage = np.concatenate([answered.stage, failed["stage"].to_numpy(dtype=np.int64)])
    count, order = len(failed), np.argsort(stage, kind="stable")

    def joined(known: NDArray[Any], of_failed: float) -> NDArray[Any]:
        return np.concatenate([known, np.full(count, of_failed, dtype=known.dtype)])[order]

    return Requests(
        stage=stage[order],
        num_items=joined(answered.num_items, 1),
        failed=joined(answered.failed, True),
        seconds=joined(answered.seconds, np.nan),
        lost_low=joined(answered.lost_low, 0.0),
        lost_high=joined(answered.lost_high, 0.0),
        share=joined(answered.share, 1.0),
    )
