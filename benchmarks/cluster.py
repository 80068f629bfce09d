"""The main job and the service on several hosts of this machine, and what faults do to them. Needs root.

python -m benchmarks.cluster [--quick]     # ends with one line of JSON: equal, answered, wrong

`equal` says whether the run on three workers and a bucket has the accuracy matrix and the policy of the same run on one
machine; `answered` is the share of requests that were answered, with one retry at another door, for each fault; `wrong`
counts answers that differ from those before the faults. A line on stderr gives the seconds of each phase. Where a phase
fails, the line of JSON holds what was measured, and `failed`, and the exit is 1. --quick leaves out the bucket's fault,
and ends within 15 minutes.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.hosts import HOME
from benchmarks.hosts_cluster import HostCluster, cluster_on_hosts, why_no_cluster

LABELS = ("bank", "card", "loan", "other")
DIM, NUM_ROWS, PORT = 8, 1_200, 8000
VECTORS = {"kind": "precomputed", "columns": ["f_*"]}
CONFIG, DEPLOYMENT, INPUTS = "run.yaml", "serve.yaml", "inputs.json"
QUICK_S = 14 * 60  # after which --quick gives up, and prints what it has
BEFORE_S, AFTER_S = 3.0, 12.0  # how long requests are sent before a fault, and after it


def rows() -> pd.DataFrame:
    """Rows of four labels whose vectors say most of it."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, len(LABELS), NUM_ROWS)
    vector_ND = rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32)
    vector_ND[np.arange(NUM_ROWS), label_N] += 3.0
    vectors = {f"f_{number}": vector_ND[:, number] for number in range(DIM)}
    ids = [f"row {number}" for number in range(NUM_ROWS)]
    return pd.DataFrame(vectors | {"id": ids, "label": [LABELS[label] for label in label_N]})


def configuration(cluster: HostCluster) -> dict[str, Any]:
    """A run whose every stage has work for several nodes, on rows in the bucket."""
    source = {"kind": "files", "path": "s3://kcm/rows.parquet", "text_column": None, "id_column": "id"}
    doors = [host.address for host in cluster.workers.values()]
    return {
        "name": "hosts",
        "storage_path": cluster.storage,
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 2},
        "encoder": VECTORS,
        "large": {"adapter": "classifier", "encoder": VECTORS, "num_folds": 2},
        "collaborators": ["kcm"],
        "network": {"hidden": [4]},
        "learner": {"name": "replay", "memory": 100},
        "train": {"num_epochs": 4, "mask_unseen": True},
        "tune": {"num_trials": 3, "gates": ["signals"], "learning_rates": [0.003, 0.01], "large_weights": [1.0]},
        "certificate": {"epsilon": 0.1},
        "tracking": {"uri": cluster.mlflow},
        "cluster": {"num_workers": 2, "num_encoders": 2, "num_trials": 2},
        "serve": {
            "host": "0.0.0.0",
            "port": PORT,
            "allowed_hosts": doors,
            "num_replicas": len(doors),
            "cpus": 0.4,
            # Well below what a client waits: a call to a node that is gone is given up, and made again elsewhere.
            "large": {"num_replicas": 2, "cpus": 0.4, "attempt_timeout_s": 3},
            "feedback": {"url": cluster.log},
        },
    }


def prepare(cluster: HostCluster) -> None:
    """Put the rows into the bucket, and the configuration on the laptop."""
    content = io.BytesIO()
    rows().to_parquet(content)
    cluster.upload("rows.parquet", content.getvalue())
    cluster.laptop.write(CONFIG, yaml.safe_dump(configuration(cluster)))


def submit(cluster: HostCluster) -> dict[str, Any]:
    """Submit the run from the laptop and follow it to its end; its result. AssertionError where it fails."""
    ended = cluster.kcm("submit", CONFIG, "--address", cluster.dashboard)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    result = f"{cluster.storage}/runs/hosts/result.json"
    assert ended.stdout.splitlines()[-1] == result
    return content(json.loads(cluster.download(result.removeprefix("s3://kcm/"))))


def start_on_one_machine(cluster: HostCluster) -> subprocess.Popen[str]:
    """Start the same run on the laptop alone."""
    local = {"storage_path": f"{HOME}/storage", "tracking.uri": "null", "serve.feedback.url": "null"}
    words = [word for key, value in local.items() for word in ("--set", f"{key}={value}")]
    return cluster.laptop.start([sys.executable, "-m", "jobs.cli", "run", CONFIG, *words], "alone.log")


def on_one_machine(cluster: HostCluster, started: subprocess.Popen[str]) -> dict[str, Any]:
    """The result of the run on the laptop, when it has ended."""
    assert started.wait(timeout=600) == 0, cluster.laptop.read("alone.log")
    return content(json.loads(cluster.laptop.read("storage/runs/hosts/result.json")))


def content(result: dict[str, Any]) -> dict[str, Any]:
    """What must not depend on where a run works: accuracies, and the policy with what it saves."""
    names = ("accuracy_matrix", "policy", "overall", "tasks", "continual")
    return {name: result["kcm"][name] for name in names if name in result["kcm"]}


def deploy(cluster: HostCluster) -> list[str]:
    """Serve the champion on the workers; the URLs of their doors."""
    built = cluster.kcm("serve", CONFIG, "--build", DEPLOYMENT)
    assert built.returncode == 0, built.stderr
    cluster.laptop.run("serve", "deploy", "--address", cluster.dashboard, DEPLOYMENT)
    urls = [f"http://{host.address}:{PORT}" for host in cluster.workers.values()]
    wait_until_ready(cluster, urls)
    items = rows().head(40)[[f"f_{number}" for number in range(DIM)]].to_numpy().tolist()
    cluster.laptop.write(INPUTS, json.dumps([{"features": item} for item in items]))
    return urls


def wait_until_ready(cluster: HostCluster, urls: list[str], timeout_s: float = 180) -> None:
    """Wait until every door answers."""
    script = """
import sys, time, urllib.request
deadline = time.monotonic() + float(sys.argv[1])
for url in sys.argv[2:]:
    while True:
        try:
            urllib.request.urlopen(url + "/readyz", timeout=5)
            break
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"{url} is not ready: {error}")
            time.sleep(0.5)
"""
    command = [sys.executable, "-S", "-c", script, str(timeout_s), *urls]
    ended = cluster.laptop.run(*command, check=False, timeout_s=timeout_s + 60)
    if ended.returncode:
        raise AssertionError(ended.stderr + cluster.laptop.run("serve", "status", "-a", cluster.dashboard).stdout)


@contextmanager
def requests(cluster: HostCluster, urls: list[str]) -> Iterator[dict[str, float]]:
    """Requests while the block is carried out; the dict is filled at its end."""
    found: dict[str, float] = {}
    process = cluster.laptop.start(
        [sys.executable, "-m", "benchmarks.hosts_load", INPUTS, *urls], stdin=subprocess.PIPE
    )
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        yield found
        out, err = process.communicate(timeout=60)  # closes its input, which ends it
        assert process.returncode == 0, err
        sys.stderr.write(err)
        found |= json.loads(out)
    finally:
        process.kill()


def a_worker_is_killed(cluster: HostCluster) -> None:
    """The last worker loses power."""
    cluster.workers[list(cluster.workers)[-1]].power_off()
    time.sleep(20)


def a_link_is_cut(cluster: HostCluster) -> None:
    """Nothing reaches a worker for 20 s."""
    with cluster.net.cut(cluster.workers[list(cluster.workers)[1]]):
        time.sleep(20)


def silent(program: str, seconds: float) -> Callable[[HostCluster], None]:
    """A service beside the cluster says nothing for a while."""

    def fault(cluster: HostCluster) -> None:
        cluster.store.run("pkill", "-STOP", program)
        try:
            time.sleep(seconds)
        finally:
            cluster.store.run("pkill", "-CONT", program)

    return fault


Fault = Callable[[HostCluster], None]
# The worker that is killed does not come back: last.
QUICK: Mapping[str, Fault] = {
    "database": silent("postgres", 20),
    "link": a_link_is_cut,
    "worker": a_worker_is_killed,
}
ALL: Mapping[str, Fault] = {"bucket": silent("weed", 30), **QUICK}


def answered(cluster: HostCluster, urls: list[str], fault: Fault) -> dict[str, float]:
    """Shares of requests that are answered before, while and after a fault happens."""
    wait_until_ready(cluster, urls)
    with requests(cluster, urls) as found:
        time.sleep(BEFORE_S)
        fault(cluster)
        time.sleep(AFTER_S)
    return found


class PhaseError(Exception):
    """A phase has failed, and what it was to measure is missing."""


@dataclass
class Report:
    """What has been measured so far, and why the rest is missing."""

    equal: bool | None = None
    faults: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Print the seconds that the block takes; raise PhaseError where it fails."""
        started, outcome = time.monotonic(), "stopped"
        try:
            yield
            outcome = "done"
        except Exception as error:
            outcome = "failed"
            self.failed[name] = f"{type(error).__name__}: {error}"[:2000]
            raise PhaseError(name) from error
        finally:
            seconds, load = time.monotonic() - started, os.getloadavg()[0]
            print(f"{name:10} {outcome} in {seconds:.0f} s, load {load:.1f}", file=sys.stderr, flush=True)

    def line(self) -> dict[str, Any]:
        """What is printed as JSON."""
        shares = {name: round(figures["answered"], 5) for name, figures in self.faults.items()}
        wrong = sum(int(figures["wrong"]) for figures in self.faults.values()) if self.faults else None
        line = {"equal": self.equal, "answered": shares, "wrong": wrong}
        return line | ({"failed": self.failed} if self.failed else {})


def measure(cluster: HostCluster, report: Report, faults: Mapping[str, Fault]) -> None:
    """Run and serve on a prepared cluster, and bring the faults about.

    A fault that fails leaves the others to be measured. Raises PhaseError where nothing can be.
    """
    with report.phase("run"):
        alone = start_on_one_machine(cluster)  # meanwhile: each of them waits for one process after the other to start
        there = submit(cluster)
    with suppress(PhaseError), report.phase("reference"):
        report.equal = on_one_machine(cluster, alone) == there
    with report.phase("deploy"):
        urls = deploy(cluster)
    for name, fault in faults.items():
        with suppress(PhaseError), report.phase(name):
            report.faults[name] = answered(cluster, urls, fault)
            print(name, report.faults[name], file=sys.stderr)


@contextmanager
def prepared(report: Report) -> Iterator[HostCluster]:
    """The cluster with the rows in its bucket."""
    with ExitStack() as stack:
        with report.phase("cluster"):
            cluster = stack.enter_context(cluster_on_hosts(3))
            prepare(cluster)
        yield cluster


def main() -> int:
    """Print the figures; 1 where some are missing."""
    if reason := why_no_cluster():
        raise SystemExit(reason)
    quick = "--quick" in sys.argv
    report = Report()
    for ending in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    signal.alarm(QUICK_S if quick else 0)
    try:
        with suppress(PhaseError), prepared(report) as cluster:
            measure(cluster, report, QUICK if quick else ALL)
            signal.alarm(0)  # nothing may interrupt the end of the hosts
    except KeyboardInterrupt:
        report.failed["time"] = "stopped before its end"
    print(json.dumps(report.line()))
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
