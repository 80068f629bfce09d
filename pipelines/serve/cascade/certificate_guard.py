"""What becomes of a version whose certificate does not hold: void here, refuted by its own traffic, or expired."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from typing import Literal

from kcm.bundle.runtime import SmallSide
from kcm.cascade.policy import ESCALATE_ALL
from pipelines.serve.log.entries import utc_now

OnRefuted = Literal["escalate_all", "report"]
Standing = Literal["holds", "refuted", "expired", "void"]

logger = logging.getLogger("ray.serve")


class CertificateGuard:
    """Changes the policy of a small side once, and for good, when its certificate is refuted, void or has expired.

    `void` says why the certificate does not hold in this service, see `kcm.bundle.models`; None where it does.
    `escalate_all` keeps nothing any more, which loses nothing; `report` changes nothing.
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
            if self._on_refuted == "escalate_all":
                nothing_kept = {"decision": ESCALATE_ALL, "task_decisions": {}}
                self._side.policy = self._side.bundle.policy.model_copy(update=nothing_kept)
            because = f" ({self.void})" if self.standing == "void" else ""
            logger.error(
                "the certificate of version %s is %s%s: %s", self._version, self.standing, because, self._on_refuted
            )

    def escalate_novel(self, farthest: float) -> None:
        """Escalate inputs from this distance to all known classes on, for good: new classes are in the traffic."""
        if farthest < self._side.farthest:
            self._side.farthest = farthest
            logger.warning("version %s escalates inputs far from all known classes: new ones came", self._version)
