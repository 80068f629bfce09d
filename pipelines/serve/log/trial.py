"""The trial of a challenger in the log: its requests, and the earlier latency of the champion."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sqlalchemy import select

from kcm.certification.monitoring.trial import Requests
from pipelines.serve.log.database import Database
from pipelines.serve.log.tables import DECISIONS, FAILURES

_TYPES = {"stage": np.int64, "seconds": np.float64, "audit_share": np.float64}
_COLUMNS = {"stage": np.int64, "num_items": np.int64, "failed": np.bool_} | dict.fromkeys(
    ("seconds", "lost_low", "lost_high", "share"), np.float64
)
RECENT = 10_000  # answered items of a version from which its latency is computed


class TrialLog(Database):
    """Reads the trials of an application; every call blocks and may raise LogUnavailableError."""

    def slowest(self, version: str, quantile: float) -> float | None:
        """The `quantile` of the seconds that a version's latest requests took; None without any."""
        d = DECISIONS.c
        latest = select(d.request_id, d.seconds).where(d.application == self._application, d.model_version == version)
        latest = latest.where(d.seconds.is_not(None)).order_by(d.number.desc()).limit(RECENT)
        with self.reading() as connection:
            seconds = list(dict(connection.execute(latest).all()).values())
        return float(np.quantile(seconds, quantile, method="higher")) if seconds else None

    def read(self, after: int, challenger: str) -> Requests:
        """The requests that `challenger` took, from decisions with numbers above `after`."""
        d, f = DECISIONS.c, FAILURES.c
        decisions = (
            select(
                *(d.request_id, d.stage, d.seconds, d.route, d.audit_share, d.state, d.small_label, d.large_label),
            )
            .where(d.application == self._application, d.number > after, d.stage.is_not(None))
            .where(d.model_version == challenger)
            .order_by(d.number)
        )
        failures = select(f.stage).where(f.application == self._application, f.model_version == challenger)
        with self.reading() as connection:
            result = connection.execute(decisions)
            rows = pd.DataFrame(result.all(), columns=list(result.keys())).astype(_TYPES)
            failed_stages = connection.scalars(failures.order_by(f.failed_at)).all()
        return _requests(_with_losses(rows), failed_stages)


def _with_losses(rows: pd.DataFrame) -> pd.DataFrame:
    """Items with their losses: a kept item is lost if the large model disagrees."""
    is_audited = (rows["route"] == "small") & rows["state"].notna()
    is_known = is_audited & (rows["state"] == "answered") & rows["large_label"].notna()  # not forgotten
    differs = is_known & (rows["large_label"] != rows["small_label"])
    return rows.assign(asked=is_audited, known=is_known, differs=differs)


def _requests(items: pd.DataFrame, failed_stages: Sequence[int]) -> Requests:
    """Items joined to their requests, failed requests included, each within its stage.

    A request that was answered while audits were off counts as audited and lost in every item.
    """
    watched = items["audit_share"] > 0
    weight = 1 / items["audit_share"].where(items["asked"] & watched, 1.0)
    unknown = items["differs"] | (items["asked"] & ~items["known"])
    items = items.assign(
        low=items["differs"] * weight,
        high=(unknown * weight).where(watched, 1.0),
        share=items["audit_share"].where(watched, 1.0),
    )
    groups = items.groupby("request_id", sort=False)
    answers = groups[["stage", "seconds", "share"]].first()
    answers = answers.assign(
        num_items=groups.size(),
        failed=False,
        lost_low=groups["low"].mean(),
        lost_high=groups["high"].mean(),
    )
    failures = pd.DataFrame({"stage": failed_stages}).assign(
        seconds=np.nan, share=1.0, num_items=1, failed=True, lost_low=0.0, lost_high=0.0
    )
    requests = pd.concat([answers, failures]).sort_values("stage", kind="stable") if len(failures) else answers
    return Requests(**{name: requests[name].to_numpy(dtype=kind) for name, kind in _COLUMNS.items()})
