"""What serving costs: the cascade against the large model alone, the bare models, and itself under load.

    kcm run jobs/configs/reviews.yaml
    python benchmarks/serve.py [--config FILE] [--set KEY=VALUE] [--write]

Serves the champion of a finished run as `kcm serve` does, on this machine, with the run's review sentences; the
baselines are measured within the same minutes. The clients are a process of their own on the same cores. `--write` puts
the figures into benchmarks/results/serve.json: those behind HAProxy and, with RAY_SERVE_ENABLE_HA_PROXY=0 in the
environment, those behind Ray Serve's own proxy beside them.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import free_port, machine
from rich.console import Console
from rich.table import Table
from script import REVIEWS, keep, options, read, table
from serve_parts import Bare, Bench, throughput
from serve_sites import Place

from jobs.models import served_model
from jobs.service import ServiceSettings
from kcm.config import load_config
from kcm.tasks.readers.reviews import read_reviews
from pipelines.config import RunConfig

PROXY = "ray_serve" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0" else "haproxy"
NUM_TEXTS = 300
SECONDS = 10.0  # of a load

Figure = tuple[str, str, str, Callable[[dict[str, Any]], str]]  # name, must, aim, and how a result says it

FIGURES: list[Figure] = [
    ("cascade vs large-only, share of the ideal", "85%", "95%", lambda r: f"{r['share_of_ideal']:.0%}"),
    ("the plain ratio (ideal)", "", "", lambda r: f"{r['ratio']:.2f} ({r['ideal_ratio']:.2f})"),
    ("the same by the clock", "", "", lambda r: f"{r['wall_ratio']:.2f}"),
    ("kept items vs large-only, median at 1 client", "0.4x", "0.25x", lambda r: f"{r['kept_vs_large']:.2f}x"),
    ("door, routing, logging at 1 client", "+6 ms", "+3 ms", lambda r: f"{r['overhead_ms']:+.1f} ms"),
    ("the same in each round", "", "", lambda r: ", ".join(f"{ms:+.1f}" for ms in r["overheads_ms"])),
    ("p99 / median at 80% of the capacity", "< 4", "2.5", lambda r: f"{r['p99_over_median']:.1f}"),
    (
        "the same among kept; among escalated",
        "",
        "",
        lambda r: "{small:.1f}; {large:.1f}".format(**r["p99_over_median_by_route"]),
    ),
    (
        "goodput at twice the capacity (429; neither)",
        "90%",
        "98%",
        lambda r: f"{r['goodput']:.0%} ({r['refused']:.0%}; {r['neither']:.1%})",
    ),
]


def loads(result: dict[str, Any]) -> Table:
    """Every load."""
    names = "load, clients, answers/s, p50 ms, p99 ms, kept p50, large p50, CPU ms, large, client CPU"
    rows = []
    for name, found in result.items():
        by_clients = found if isinstance(found, dict) and "1" in found else {"": found}
        for clients, figures in by_clients.items():
            if isinstance(figures, dict) and "client_cpu" in figures:
                rows.append((name, clients, *_row(figures)))
    return table("Loads", names.split(", "), rows, "right")


def _row(figures: dict[str, Any]) -> list[str]:
    milliseconds = [figures[name] for name in ("p50_ms", "p99_ms", "kept_p50_ms", "large_p50_ms", "cpu_ms")]
    return [
        f"{figures['per_second']:.1f}",
        *("-" if value is None else f"{value:.1f}" for value in milliseconds),
        f"{figures['large_share']:.0%}",
        f"{figures['client_cpu']:.0%}",
    ]


def main() -> None:
    """Measure, print, and write if asked."""
    parser = options(__doc__, results="serve")
    parser.add_argument("--config", type=Path, default=REVIEWS, help="the run whose champion is served")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="KEY=VALUE")
    arguments = parser.parse_args()
    config = load_config(RunConfig, arguments.config, arguments.overrides)
    release = served_model(config, None)
    settings = config.serve.model_copy(update={"port": free_port()})
    site = ServiceSettings(serve=settings, cluster=config.cluster, assets_path=config.assets_path)
    texts = [record.text for record in read_reviews(config.assets_path) if record.text]
    random.Random(0).shuffle(texts)
    bench = Bench(Place(release, site), texts[:NUM_TEXTS], SECONDS)
    bare = Bare(release.bundle, config.assets_path, bench.texts, max(1, round(config.serve.cpus)))
    result = throughput(bench, bare)
    console = Console(width=140)
    console.print(loads(result))
    rows = ((name, must, aim, say(result)) for name, must, aim, say in FIGURES)
    console.print(table(f"Serving, {PROXY}", ("figure", "must", "aim", "measured"), rows, "right"))
    if arguments.write:
        proxies = read("serve").get("proxies", {}) | {PROXY: {"throughput": result}}
        keep("serve", {"machine": {**machine(), "cores": os.cpu_count()}, "proxies": proxies})


if __name__ == "__main__":
    main()
