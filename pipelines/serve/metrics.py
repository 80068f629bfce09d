"""What a door counts. The names are those of the dashboard and the alerts in deploy/helm/kcm."""

from __future__ import annotations

import asyncio
import time
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import ray
from prometheus_client import Metric, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from ray.util.metrics import Counter, Gauge, Histogram

from pipelines.serve.breaker import State
from pipelines.serve.schemas import PredictResponse

AuditOutcome = Literal["agree", "disagree", "lost"]

PREFIX = "ray_kcm_"  # Ray puts its own name before each

ITEMS = "kcm_items_total"
REQUESTS = "kcm_requests_total"
ERRORS = "kcm_errors_total"
EXPLANATIONS = "kcm_explanations_total"
UNSTORED = "kcm_unstored_total"
STAGE_SECONDS = "kcm_stage_seconds"
WAITING = "kcm_waiting_items"
CALL_RATE = "kcm_call_rate"
BREAKER = "kcm_breaker_state"
AUDITS = "kcm_audits_total"
DISAGREEMENT = "kcm_audited_disagreement"
REGRET = "kcm_audited_regret"
REFUTED = "kcm_certificate_refuted"
DRIFT = "kcm_drift_evidence"
SHADOWS = "kcm_shadows_total"
CHALLENGER = "kcm_challenger_share"
VERSION_SECONDS = "kcm_version_seconds"
FAILED = "kcm_version_failures_total"
NAMES = (
    *(ITEMS, REQUESTS, ERRORS, EXPLANATIONS, UNSTORED, STAGE_SECONDS, WAITING, CALL_RATE, BREAKER),
    *(AUDITS, DISAGREEMENT, REGRET, REFUTED, DRIFT, SHADOWS, CHALLENGER, VERSION_SECONDS, FAILED),
)

NODES_AT_ONCE = 8
NODE_TIMEOUT_S = 2.0

_SECONDS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0]
_STATES: dict[State, int] = {"closed": 0, "half_open": 1, "open": 2}


class ServeMetrics:
    """Counts by `ray.util.metrics`; Ray's agent on each node exports them, some seconds later."""

    def __init__(self) -> None:
        self._items = Counter(ITEMS, "Items answered.", ("route", "version"))
        self._requests = Counter(REQUESTS, "Prediction requests by HTTP status.", ("status",))
        self._errors = Counter(ERRORS, "Requests that ended in an error which nobody foresaw.")
        self._explanations = Counter(EXPLANATIONS, "Decisions to be explained, by HTTP status.", ("status",))
        self._unstored = Counter(UNSTORED, "What the feedback log could not store.", ("kind",))
        self._seconds = Histogram(STAGE_SECONDS, "Seconds of a request by stage.", _SECONDS, ("stage",))
        self._waiting = Gauge(WAITING, "Items that wait for the small side.")
        self._call_rate = Gauge(CALL_RATE, "Share of the items that the policy escalated, since the replica started.")
        self._breaker = Gauge(BREAKER, "0 while the large model is asked, 1 when it is tried again, 2 while it rests.")
        self._audits = Counter(AUDITS, "Kept items put to the large model too, by what it said.", ("outcome",))
        of_version = ("version", "end")
        self._disagreement = Gauge(DISAGREEMENT, "Share of items kept against the large model's answer.", of_version)
        self._regret = Gauge(REGRET, "Accuracy lost against the large model alone, by true labels.", of_version)
        self._refuted = Gauge(REFUTED, "1 once more is lost than the certificate promised.", ("version",))
        self._drift = Gauge(DRIFT, "Evidence that traffic is not like the certify rows.", ("version", "quantity"))
        self._shadows = Counter(SHADOWS, "Items that a challenger judged unseen, by what it said.", ("version", "said"))
        self._challenger = Gauge(CHALLENGER, "Share of the callers that a challenger answers.", ("version",))
        self._version_seconds = Histogram(VERSION_SECONDS, "Seconds of a request by version.", _SECONDS, ("version",))
        self._failures = Counter(FAILED, "Requests that a challenger took and did not answer.", ("version",))

    def answered(self, response: PredictResponse) -> None:
        """Count an answered request."""
        self._requests.inc(tags={"status": "200"})
        for answer in response.answers:
            self._items.inc(tags={"route": answer.route, "version": response.model_version})
        self._seconds.observe(response.timings.judge_s, {"stage": "judge"})
        if response.timings.large_s:
            self._seconds.observe(response.timings.large_s, {"stage": "large"})
        self._seconds.observe(response.timings.total_s, {"stage": "total"})
        self._version_seconds.observe(response.timings.total_s, {"version": response.model_version})

    def refused(self, status: int) -> None:
        """Count a refused prediction."""
        self._requests.inc(tags={"status": str(status)})

    def explained(self, status: int) -> None:
        """Count a request for an explanation."""
        self._explanations.inc(tags={"status": str(status)})

    def unstored(self, kind: str, number: int = 1) -> None:
        """Count what the log did not take: writes (`escalated` or `feedback`), or items (`decision`)."""
        self._unstored.inc(number, tags={"kind": kind})

    def failed(self) -> None:
        """Count a request that ended in an unexpected error."""
        self._errors.inc()

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

    def hide_bounds(self, version: str) -> None:
        """Show none of that any more: another replica does."""
        nothing = float("nan")
        for gauge in (self._disagreement, self._regret):
            for end in ("low", "high"):
                gauge.set(nothing, tags={"version": version, "end": end})
        self._refuted.set(nothing, tags={"version": version})

    def set_drift(self, version: str, e_values: Mapping[str, float]) -> None:
        """Show the evidence of drift by quantity."""
        for quantity, value in e_values.items():
            self._drift.set(value, tags={"version": version, "quantity": quantity})

    def set_challenger(self, version: str, share: float) -> None:
        """Show which share of the callers a challenger answers."""
        self._challenger.set(share, tags={"version": version})

    def shadowed(self, version: str, outcomes: Sequence[Literal["agree", "disagree", "other route"]]) -> None:
        """Count items that a challenger judged beside the champion."""
        for each in outcomes:
            self._shadows.inc(tags={"version": version, "said": each})

    def challenger_failed(self, version: str) -> None:
        """Count a request that a challenger took and did not answer."""
        self._failures.inc(tags={"version": version})

    def set_load(self, num_waiting: int, call_rate: float | None, breaker: State) -> None:
        """Show how busy this replica is, and whether it asks the large model."""
        self._waiting.set(num_waiting)
        self._breaker.set(_STATES[breaker])
        if call_rate is not None:
            self._call_rate.set(call_rate)


class Exposition:
    """The application's metrics from every node of the cluster, in Prometheus' text format.

    Nodes are asked once in `fresh_s` seconds, however many clients ask for the metrics, and by threads of their own: a
    node that does not answer is left out and delays no item. On a large cluster let Prometheus scrape the nodes itself,
    by the targets that Ray writes.
    """

    def __init__(
        self,
        pages: Callable[[], Iterable[str]] | None = None,
        fresh_s: float = 2.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._pages, self._fresh_s, self._clock = pages or self._pages_of_nodes, fresh_s, clock
        self._nodes = ThreadPoolExecutor(NODES_AT_ONCE, thread_name_prefix="scrape")
        self._merging = ThreadPoolExecutor(1, thread_name_prefix="exposition")
        self._gathering: asyncio.Future[str] | None = None
        self._asked_at = 0.0

    async def __call__(self) -> str:
        """The metrics gathered last, if they are fresh; calls in the meantime wait for the same gathering."""
        if self._gathering is None or (self._gathering.done() and self._clock() - self._asked_at >= self._fresh_s):
            self._asked_at = self._clock()
            loop = asyncio.get_running_loop()
            self._gathering = loop.run_in_executor(self._merging, lambda: merged(self._pages()))
        return await asyncio.shield(self._gathering)

    def _pages_of_nodes(self) -> Iterable[str]:
        addresses = [
            f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
            for node in ray.nodes()
            if node["Alive"]
        ]
        return self._nodes.map(_page, addresses)


def _page(address: str) -> str:
    try:
        with urllib.request.urlopen(address, timeout=NODE_TIMEOUT_S) as response:
            return str(response.read().decode())
    except OSError:
        return ""


class _Families(dict[str, Metric], Collector):
    """Families by name, as prometheus_client writes them out."""

    def collect(self) -> Iterable[Metric]:
        return self.values()


def merged(pages: Iterable[str]) -> str:
    """The families of this application on any of the pages, each once."""
    families = _Families()
    for page in pages:
        for family in text_string_to_metric_families(page):
            if family.name.startswith(PREFIX):
                families.setdefault(family.name, Metric(family.name, family.documentation, family.type))
                families[family.name].samples += family.samples
    return generate_latest(families).decode()
