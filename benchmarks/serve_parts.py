"""What is measured of the service, with its baselines within the same minutes."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil
from serve_load import Load, Plan, run
from serve_models import Bare
from serve_sites import Place

CLOSED = (1, 8, 64)
QUEUES_FILL_S = 12.0  # until then kept items are answered at once and escalated ones only gather
OVERHEAD_ROUNDS = 5


@dataclass(frozen=True)
class Bench:
    """Where it is measured, and with what."""

    place: Place
    texts: Sequence[str]
    seconds: float

    def closed(self, url: str, warm_up_s: float = 3.0) -> dict[int, Load]:
        """Loads by their number of clients."""
        return {
            clients: measured(Plan(url, self.texts, self.seconds, clients=clients, warm_up_s=warm_up_s))
            for clients in CLOSED
        }

    def at_rate(self, url: str, rate: float, warm_up_s: float = 3.0) -> Load:
        """A load at a fixed rate."""
        return measured(Plan(url, self.texts, self.seconds, rate=rate, warm_up_s=warm_up_s))


def measured(plan: Plan) -> Load:
    """What became of a load, and what it cost."""
    before = served_cpu_s()
    load = run(plan)
    return replace(load, served_cpu_s=served_cpu_s() - before)


def served_cpu_s() -> float:
    """CPU seconds so far of all processes of this process's cluster."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True) if process.is_running()]
    return sum(each.user + each.system for each in times)


def throughput(bench: Bench, bare: Bare) -> dict[str, Any]:
    """The cascade against the large model alone, and against what the bare models allow."""
    with bench.place.large_only() as url:
        large = bench.closed(url, QUEUES_FILL_S)
    speeds = bare.speeds()
    with bench.place.cascade() as url:
        cascade = bench.closed(url, QUEUES_FILL_S)
        added = [_added_ms(bench, url, bare) for _ in range(OVERHEAD_ROUNDS)]
        capacity = max(load.per_second for load in cascade.values())
        busy = bench.at_rate(url, 0.8 * capacity)
        over = bench.at_rate(url, 2 * capacity, warm_up_s=QUEUES_FILL_S)
    ratio = large[64].cpu_ms / cascade[64].cpu_ms
    return {
        "bare": asdict(speeds),
        "ideal_ratio": speeds.ideal_ratio,
        "ratio": ratio,
        "share_of_ideal": ratio / speeds.ideal_ratio,
        "wall_ratio": capacity / max(load.per_second for load in large.values()),
        "cascade": _by_clients(cascade),
        "large_only": _by_clients(large),
        "kept_vs_large": cascade[1].milliseconds(0.5, "small") / large[1].milliseconds(0.5),
        "overhead_ms": statistics.median(added),
        "overheads_ms": sorted(added),
        "capacity": capacity,
        "at_80_percent": _summary(busy),
        "p99_over_median": busy.milliseconds(0.99) / busy.milliseconds(0.5),
        "p99_over_median_by_route": {
            route: busy.milliseconds(0.99, route) / busy.milliseconds(0.5, route) for route in ("small", "large")
        },
        "at_twice": _summary(over),
        "goodput": over.per_second / capacity,
        "refused": over.share(429),
        "neither": 1 - over.share(429) - over.share(200),
    }


def _added_ms(bench: Bench, url: str, bare: Bare) -> float:
    """What a kept text takes longer through the service than through the bare models within the same seconds."""
    alone_ms = bare.kept_alone_ms()
    served = run(Plan(url, bench.texts, 5.0, clients=1, warm_up_s=1.0))
    return served.milliseconds(0.5, "small") - alone_ms


def _by_clients(loads: dict[int, Load]) -> dict[str, Any]:
    return {str(clients): _summary(load) for clients, load in loads.items()}


def _summary(load: Load) -> dict[str, Any]:
    figures = {
        "per_second": load.per_second,
        "p50_ms": load.milliseconds(0.5),
        "p99_ms": load.milliseconds(0.99),
        "kept_p50_ms": load.milliseconds(0.5, "small"),
        "large_p50_ms": load.milliseconds(0.5, "large"),
        "cpu_ms": load.cpu_ms,
        "large_share": load.route_share("large"),
        "degraded_share": load.route_share("small_degraded"),
        "client_cpu": load.client_cpu,
    }
    return {name: None if math.isnan(value) else round(value, 4) for name, value in figures.items()}
