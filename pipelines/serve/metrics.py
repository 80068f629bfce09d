"""Metrics of an HTTP replica. Ray exports each from every node as `ray_` plus its name; deploy/helm/kcm shows them."""

from __future__ import annotations

from typing import Literal

from ray.util.metrics import Counter, Gauge, Histogram

from pipelines.serve.breaker import State
from pipelines.serve.schemas import PredictResponse

AuditOutcome = Literal["agree", "disagree", "lost"]

_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
_STATES: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}


class ServeMetrics:
    """Metrics by `ray.util.metrics`; Ray's agent on each node exports them, some seconds later."""

    def __init__(self) -> None:
        self._items = Counter("kcm_items_total", "Items answered.", ("route", "version"))
        self._requests = Counter("kcm_requests_total", "Prediction requests by HTTP status.", ("status",))
        self._errors = Counter("kcm_errors_total", "Requests that ended in an unexpected error.")
        self._turned_away = Counter(
            "kcm_turned_away_total", "Requests refused because of their body or a full service.", ("status",)
        )
        self._unread = Gauge("kcm_unread_bodies", "Requests whose body has not arrived yet.")
        self._unstored = Counter("kcm_unstored_total", "Entries that the feedback log could not store.", ("kind",))
        self._seconds = Histogram(
            "kcm_stage_seconds", "Seconds of a request by stage and version.", _SECONDS, ("stage", "version")
        )
        self._waiting = Gauge("kcm_waiting_items", "Items waiting for the small side.")
        self._breaker = Gauge("kcm_breaker_state", "Circuit breaker of the large model: 0 closed, 1 half open, 2 open.")
        self._audits = Counter("kcm_audits_total", "Audits of kept items, by result.", ("outcome",))
        of_version = ("version", "end")
        self._disagreement = Gauge(
            "kcm_audited_disagreement", "Share of items kept with another answer than the large model's.", of_version
        )
        self._regret = Gauge(
            "kcm_audited_regret", "Accuracy lost against the large model alone, by true labels.", of_version
        )
        self._refuted = Gauge(
            "kcm_certificate_refuted", "1 if the certificate is refuted: more is lost than it promised.", ("version",)
        )
        self._update_units = Gauge(
            "kcm_update_units", "Certify units of traffic that the first update needs; 0 without audits.", ("version",)
        )
        self._novelty = Gauge("kcm_novelty_evidence", "Evidence that traffic holds new classes.", ("version",))

    @property
    def names(self) -> frozenset[str]:
        """The names of all metrics."""
        return frozenset(metric.info["name"] for metric in vars(self).values())

    def answered(self, response: PredictResponse) -> None:
        """Count an answered request."""
        self._requests.inc(tags={"status": "200"})
        for answer in response.answers:
            self._items.inc(tags={"route": answer.route, "version": response.model_version})
        timings = response.timings
        stages = {"judge": timings.judge_s, "large": timings.large_s, "total": timings.total_s}
        for stage, seconds in stages.items():
            if seconds:
                self._seconds.observe(seconds, {"stage": stage, "version": response.model_version})

    def refused(self, status: int) -> None:
        """Count a refused prediction."""
        self._requests.inc(tags={"status": str(status)})

    def unstored(self, kind: str, number: int = 1) -> None:
        """Count entries that the log did not store: writes (`escalated` or `feedback`), or items (`decision`)."""
        self._unstored.inc(number, tags={"kind": kind})

    def failed(self) -> None:
        """Count a request that ended in an unexpected error."""
        self._errors.inc()

    def turned_away(self, status: int) -> None:
        """Count a request that was refused because of its body or a full service."""
        self._turned_away.inc(tags={"status": str(status)})
        if status == 429:
            self.refused(status)

    def set_unread(self, number: int) -> None:
        """Show how many requests wait for their body."""
        self._unread.set(number)

    def audited(self, outcome: AuditOutcome) -> None:
        """Count an audit."""
        self._audits.inc(tags={"outcome": outcome})

    def set_bounds(
        self, version: str, *, disagreement: tuple[float, float], regret: tuple[float, float], alarm: bool
    ) -> None:
        """Show the ends of a version's confidence sequences, and whether its certificate is refuted."""
        for gauge, ends in ((self._disagreement, disagreement), (self._regret, regret)):
            for end, value in zip(("low", "high"), ends, strict=True):
                gauge.set(value, tags={"version": version, "end": end})
        self._refuted.set(float(alarm), tags={"version": version})

    def set_novelty(self, version: str, e_value: float) -> None:
        """Show the evidence of new classes."""
        self._novelty.set(e_value, tags={"version": version})

    def set_update_units(self, version: str, number: int | None) -> None:
        """Show how many certify units the first update of a version needs."""
        self._update_units.set(number or 0, tags={"version": version})

    def set_waiting(self, number: int) -> None:
        """Show how many items wait for the small side."""
        self._waiting.set(number)

    def set_breaker(self, state: State) -> None:
        """Show the state of the large model's breaker."""
        self._breaker.set(_STATES[state])
