"""What serving costs: the cascade against the large model alone, the bare models, and itself under load.

    kcm run jobs/configs/reviews.yaml
    python benchmarks/serve.py [--config FILE] [--set KEY=VALUE] [--write]

Serves the champion of a finished run as `kcm serve` does, on this machine, with the run's review sentences; the
baselines are measured within the same minutes. The clients are a process of their own on the same cores. `--write` puts
the figures into benchmarks/results/serve.json: those behind HAProxy and, with RAY_SERVE_ENABLE_HA_PROXY=0 in the
environment, those behind Ray Serve's own proxy beside them.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import torch
from rich.pretty import pprint

from benchmarks.machine import free_port, machine
from benchmarks.script import REVIEWS, keep, options, read
from benchmarks.serve_load import Load, Plan, run
from benchmarks.serve_sites import Place
from jobs.models import served_model
from jobs.settings import ServiceSettings
from kcm.api.cascade import load_cascade
from kcm.bundle.answers import Input, Judgement
from kcm.config import load_config
from kcm.inputs.content import Content
from kcm.large import Item
from kcm.tasks.readers.reviews import read_reviews
from pipelines.config import RunConfig

PROXY = "ray_serve" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0" else "haproxy"
NUM_TEXTS = 300
SECONDS = 10.0  # seconds of a load
CLOSED = (1, 8, 64)
QUEUES_FILL_S = 12.0  # until then kept items are answered immediately and escalated ones only gather
OVERHEAD_ROUNDS = 5
NUM_ALONE = 40  # texts that are judged one after the other


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
    """The outcome and the cost of a load."""
    before = served_cpu_s()
    load = run(plan)
    return replace(load, served_cpu_s=served_cpu_s() - before)


def served_cpu_s() -> float:
    """CPU seconds so far of all processes of this process's cluster."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True) if process.is_running()]
    return sum(process_times.user + process_times.system for process_times in times)


def throughput(bench: Bench, bare_model: Bare) -> dict[str, Any]:
    """The cascade against the large model alone, and against what the bare models allow."""
    with bench.place.large_only() as url:
        large = bench.closed(url, QUEUES_FILL_S)
    speeds = bare_model.speeds()
    with bench.place.cascade() as url:
        cascade = bench.closed(url, QUEUES_FILL_S)
        added_ms = [_added_ms(bench, url, bare_model) for _ in range(OVERHEAD_ROUNDS)]
        capacity = max(load.per_second for load in cascade.values())
        busy = bench.at_rate(url, 0.8 * capacity)
        overload = bench.at_rate(url, 2 * capacity, warm_up_s=QUEUES_FILL_S)
    ratio = large[64].cpu_ms / cascade[64].cpu_ms
    return {
        "bare": asdict(speeds),
        "ideal_ratio": speeds.ideal_ratio,
        "ratio": ratio,
        "share_of_ideal": ratio / speeds.ideal_ratio,
        "wall_ratio": capacity / max(load.per_second for load in large.values()),
        "cascade": {str(clients): _summary(load) for clients, load in cascade.items()},
        "large_only": {str(clients): _summary(load) for clients, load in large.items()},
        "kept_vs_large": cascade[1].milliseconds(0.5, "small") / large[1].milliseconds(0.5),
        "overhead_ms": statistics.median(added_ms),
        "overheads_ms": sorted(added_ms),
        "capacity": capacity,
        "at_80_percent": _summary(busy),
        "p99_over_median": busy.milliseconds(0.99) / busy.milliseconds(0.5),
        "p99_over_median_by_route": {
            route: busy.milliseconds(0.99, route) / busy.milliseconds(0.5, route) for route in ("small", "large")
        },
        "at_twice": _summary(overload),
        "goodput": overload.per_second / capacity,
        "refused": overload.share(429),
        "neither": 1 - overload.share(429) - overload.share(200),
    }


def _added_ms(bench: Bench, url: str, bare_model: Bare) -> float:
    """What a kept text takes longer through the service than through the bare models within the same seconds."""
    alone_ms = bare_model.kept_alone_ms()
    served = run(Plan(url, bench.texts, 5.0, clients=1, warm_up_s=1.0))
    return served.milliseconds(0.5, "small") - alone_ms


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


@dataclass(frozen=True)
class Speeds:
    """Seconds of CPU that either side takes for a text among many, and the share of texts that is escalated."""

    small_cpu_ms: float
    large_cpu_ms: float
    call_rate: float

    @property
    def ideal_ratio(self) -> float:
        """How much more than the large model alone a cascade without any overhead gets done."""
        return self.large_cpu_ms / (self.small_cpu_ms + self.call_rate * self.large_cpu_ms)


class Bare:
    """Both sides of a bundle in this process, with as many threads as a replica has; both see every text."""

    def __init__(self, bundle: Path, assets_dir: Path, texts: Sequence[str], threads: int) -> None:
        torch.set_num_threads(threads)
        self._cascade = load_cascade(bundle, assets_dir)
        self._inputs = [Input(Content(text)) for text in texts]
        self._questions = [Item(str(number), Content(text)) for number, text in enumerate(texts)]
        judgements = self._cascade.small_side.judge(self._inputs)  # also warms up
        self._cascade.large_model.answer(self._questions[:32])
        self._kept = [
            item
            for item, judgement in zip(self._inputs, judgements, strict=True)
            if isinstance(judgement, Judgement) and judgement.keeps
        ]

    def speeds(self) -> Speeds:
        """What either side takes for many texts."""
        count = len(self._inputs)
        return Speeds(
            small_cpu_ms=_cpu_ms(lambda: self._cascade.small_side.judge(self._inputs)) / count,
            large_cpu_ms=_cpu_ms(lambda: self._cascade.large_model.answer(self._questions)) / count,
            call_rate=1 - len(self._kept) / count,
        )

    def kept_alone_ms(self) -> float:
        """How long a kept text takes that is answered alone: the median over some."""
        times = []
        for index in range(NUM_ALONE):
            started = time.perf_counter()
            self._cascade.answer([self._kept[index % len(self._kept)]])
            times.append(time.perf_counter() - started)
        return 1000 * statistics.median(times)


def _cpu_ms(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return 1000 * (time.process_time() - started)


def main() -> None:
    """Measure, print, and write if asked."""
    parser = options(__doc__, results="serve")
    parser.add_argument("--config", type=Path, default=REVIEWS, help="the run whose champion is served")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of a load")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    config = load_config(RunConfig, arguments.config, arguments.overrides)
    release = served_model(config, None)
    settings = config.serve.model_copy(update={"port": free_port()})
    site = ServiceSettings(serve=settings, cluster=config.cluster, assets_path=config.assets_path)
    texts = [record.text for record in read_reviews(config.assets_path) if record.text]
    random.Random(0).shuffle(texts)
    bench = Bench(Place(release, site), texts[:NUM_TEXTS], arguments.seconds)
    bare_model = Bare(release.bundle, config.assets_path, bench.texts, max(1, round(config.serve.cpus)))
    result = throughput(bench, bare_model)
    pprint(result)
    if arguments.write:
        proxies = read("serve").get("proxies", {}) | {PROXY: {"throughput": result}}
        keep("serve", {"machine": {**machine(), "cores": os.cpu_count()}, "proxies": proxies})


if __name__ == "__main__":
    main()
