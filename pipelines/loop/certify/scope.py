"""What is known of a window beside its decisions, and what of it would void a certificate."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd

from kcm.cascade.policy import Policy
from kcm.errors import DataError
from kcm.large.prompting.prompts import PromptMode

MAX_MISSING = 0.001  # share of a window's decisions that may be missing from the log
_AHEAD = timedelta(days=1)  # by which a clock may be wrong


@dataclass(frozen=True, kw_only=True)
class WindowScope:
    """What is known of a window beside its rows.

    Its decisions have numbers in (`after`, `upto`]; `num_missing` of them and of all purposes never reached the log,
    `num_decisions` did. `promoted_after`: the last decision before the champion was promoted. `alarm`: the last
    decision that the alarm had seen which called for this attempt, if one did. `large_identity`: the large model that
    the challenger escalates to; `prompt`: what the champion showed it. `trained_units`: units that trained, tuned or
    chose anything in the challenger or its ancestors.
    """

    application: str
    after: int
    upto: int
    num_decisions: int
    num_missing: int = 0
    promoted_after: int = 0
    alarm: int | None = None
    large_identity: str
    prompt: PromptMode = "none"
    trained_units: Collection[str] = field(default=frozenset(), repr=False)
    expires_days: float = 30.0
    now: datetime = field(default_factory=lambda: datetime.now(UTC))


def refuse(table: pd.DataFrame, policy: Policy, scope: WindowScope) -> None:
    """Raise DataError for the first thing that voids the promise."""
    where = f"application {scope.application}, decisions {scope.after + 1} to {scope.upto}"
    for bad, what, hint in _objections(table, policy, scope):
        if bad:
            raise DataError(what, where=where, hint=hint)


def _objections(table: pd.DataFrame, policy: Policy, scope: WindowScope) -> list[tuple[bool, str, str]]:
    """Whether each objection holds, what it says, and what to do."""
    fresh = "Wait for traffic after it"
    probability, share = (table[name].to_numpy(dtype=np.float64) for name in ("probability", "audit_share"))
    improbable, silent = ~(probability > 0), ~(share > 0)
    nameless = table["model_version"].isna() | (table["model_version"] == "") | table["unit"].isna()
    outside = (table["number"] <= scope.after) | (table["number"] > scope.upto)
    trained = table["unit"].isin(list(scope.trained_units))
    other = table["purpose"] != "certify" if "purpose" in table else pd.Series(False, index=table.index)
    identities = sorted({str(each) for each in table["large_identity"].unique()} - {scope.large_identity})
    missing = scope.num_missing / max(1, scope.num_missing + scope.num_decisions)
    latest = table["answered_at"].max()
    return [
        (
            scope.after < scope.promoted_after,
            f"the window begins before the champion was promoted, after decision {scope.promoted_after}",
            fresh,
        ),
        (
            scope.alarm is not None and scope.after < scope.alarm,
            f"the window holds decisions that raised the alarm, up to {scope.alarm}",
            fresh,
        ),
        (
            (policy.prompt, scope.prompt) != ("none", "none"),
            "the log has no answers under prompt `none` beside those under another",
            "Update a champion whose policy, like the challenger's, has prompt none",
        ),
        (
            missing > MAX_MISSING,
            f"{scope.num_missing} decisions are missing from the log, {100 * missing:.2g}% of the window",
            f"Begin a window after the gap; {100 * MAX_MISSING:g}% may be missing",
        ),
        (bool(outside.any()), f"{outside.sum()} decisions lie outside the window", "Read the window again"),
        (bool(other.any()), f"{other.sum()} decisions are of no certify unit", "Give certify decisions alone"),
        (
            bool(nameless.any()),
            f"{nameless.sum()} decisions have no version or unit",
            "Begin after older versions of the service",
        ),
        (
            bool(silent.any()),
            f"nothing was audited when {silent.sum()} decisions were made",
            "Set serve.audit.share, and begin the window after that",
        ),
        (
            bool(improbable.any()),
            f"{improbable.sum()} decisions have no probability of having been audited",
            "Begin the window after older versions of the service",
        ),
        (
            bool(trained.any()),
            f"{trained.sum()} decisions are of units that the challenger was trained or tuned on",
            "Certify units are never trained on; look for a changed salt or split",
        ),
        (
            bool(identities),
            f"answers are of another large model, {', '.join(identities[:3])}, than {scope.large_identity}",
            "Begin the window after the change",
        ),
        (
            len(table) > 0 and pd.notna(latest) and utc_of(latest) > scope.now + _AHEAD,
            f"decisions are dated up to {latest}, which has not come yet",
            "Set the clocks right; a certificate expires by them",
        ),
    ]


def utc_of(when: Any) -> datetime:
    """A time of the log, which is in UTC whether it says so or not."""
    stamp = pd.Timestamp(when)
    stamp = stamp.tz_localize(UTC) if stamp.tzinfo is None else stamp.tz_convert(UTC)
    in_utc: datetime = stamp.to_pydatetime()
    return in_utc
