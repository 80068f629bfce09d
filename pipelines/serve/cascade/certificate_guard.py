"""What becomes of a version whose certificate does not hold: void here, refuted by its own traffic, or expired."""

from __future__ import annotations

import bisect
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any, Literal

from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import ESCALATE_ALL, Decision, Policy
from pipelines.serve.log.entries import utc_now

OnRefuted = Literal["escalate_all", "tighten", "report"]
Standing = Literal["holds", "refuted", "expired", "void"]

logger = logging.getLogger("ray.serve")


class CertificateGuard:
    """Changes the policy of a small side once, and for good, when its certificate is refuted, void or has expired.

    `void` says why the certificate does not hold in this service, see `kcm.bundle.models`; None where it does.
    `escalate_all` keeps nothing any more, which loses nothing. `tighten` keeps the surest half of what was kept, by the
    frontier that the bundle was evaluated on; nothing is promised of it. `report` changes nothing.
    """

    def __init__(
        self,
        side: SmallSide,
        version: str,
        on_refuted: OnRefuted,
        now: Callable[[], datetime] = utc_now,
        void: str | None = None,
    ) -> None:
        self._side, self._version, self._on_refuted, self._now = side, version, on_refuted, now
        self.void = void
        self.standing: Standing = "holds"

    def act(self, refuted: bool) -> None:
        """Look at the certificates; `refuted` says what the log holds of them."""
        expired = any(each.expired(self._now()) for each in self._side.bundle.certificates.values())
        if self.standing == "holds" and (refuted or expired or self.void):
            self.standing = "refuted" if refuted else "expired" if expired else "void"
            self._side.policy = guarded(self._side.bundle.policy, self._side.bundle.metrics, self._on_refuted)
            because = f" ({self.void})" if self.standing == "void" else ""
            logger.error(
                "the certificate of version %s is %s%s: %s", self._version, self.standing, because, self._on_refuted
            )

    def escalate_novel(self, farthest: float) -> None:
        """Escalate inputs from this distance to all known classes on, for good: new classes are in the traffic."""
        if farthest < self._side.farthest:
            self._side.farthest = farthest
            logger.warning("version %s escalates inputs far from all known classes: new ones came", self._version)


def guarded(policy: Policy, metrics: Any, on_refuted: OnRefuted) -> Policy:
    """The policy that takes the place of one whose certificate does not hold."""
    if on_refuted == "report":
        return policy
    if on_refuted == "escalate_all" or (threshold := _halfway(policy.decision, metrics)) is None:
        return policy.model_copy(update={"decision": ESCALATE_ALL, "task_decisions": {}})
    tasks = {task: Decision.of(max(threshold, decision.cut)) for task, decision in policy.task_decisions.items()}
    return policy.model_copy(update={"decision": Decision.of(threshold), "task_decisions": tasks})


def _halfway(decision: Decision, metrics: Any) -> float | None:
    """The threshold that keeps half of what `decision` keeps; None where the bundle has no frontier to tell."""
    frontier = metrics.get("frontier", {}) if hasattr(metrics, "get") else {}
    points = sorted(
        (rate, threshold)
        for rate, threshold in zip(frontier.get("call_rate", ()), frontier.get("threshold", ()), strict=True)
        if threshold is not None and threshold >= decision.cut
    )
    if not points:
        return None
    goal = 1 - (1 - points[0][0]) / 2
    position = bisect.bisect_left(points, (goal,))
    return float(points[position][1]) if position < len(points) else None
