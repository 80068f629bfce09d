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
from pathlib import Path

from rich.pretty import pprint

from benchmarks.machine import free_port, machine
from benchmarks.script import REVIEWS, keep, options, read
from benchmarks.serve_parts import Bare, Bench, throughput
from benchmarks.serve_sites import Place
from jobs.models import served_model
from jobs.settings import ServiceSettings
from kcm.config import load_config
from kcm.tasks.readers.reviews import read_reviews
from pipelines.config import RunConfig

PROXY = "ray_serve" if os.environ.get("RAY_SERVE_ENABLE_HA_PROXY") == "0" else "haproxy"
NUM_TEXTS = 300
SECONDS = 10.0  # seconds of a load


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
    bare_model = Bare(release.bundle, config.assets_path, bench.texts, max(1, round(config.serve.cpus)))
    result = throughput(bench, bare_model)
    pprint(result)
    if arguments.write:
        proxies = read("serve").get("proxies", {}) | {PROXY: {"throughput": result}}
        keep("serve", {"machine": {**machine(), "cores": os.cpu_count()}, "proxies": proxies})


if __name__ == "__main__":
    main()
