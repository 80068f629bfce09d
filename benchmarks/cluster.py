"""The main job and the service on several hosts of this machine, and what faults do to them. Needs root.

python -m benchmarks.cluster [--quick]     # ends with one line of JSON: equal, answered, wrong

`equal` says whether the run on three workers and a bucket has the accuracy matrix and the policy of the same run on one
machine; `answered` is the share of requests that were answered, with one retry at another door, for each fault; `wrong`
counts answers that differ from those before the faults. --quick leaves out the faults of the database and the bucket.
"""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import yaml

from benchmarks.hosts import HOME, why_no_hosts
from benchmarks.hosts_cluster import HostCluster, cluster_on_hosts

LABELS = ("bank", "card", "loan", "other")
DIM, NUM_ROWS, PORT = 8, 1_200, 8000
VECTORS = {"kind": "precomputed", "columns": ["f_*"]}
CONFIG, DEPLOYMENT = "run.yaml", "serve.yaml"


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
        "tune": {"num_trials": 3, "gates": ["deferral"], "learning_rates": [0.003, 0.01], "large_weights": [1.0]},
        "certificate": {"epsilon": 0.1},
        "tracking": {"uri": cluster.mlflow},
        "cluster": {"num_workers": 2, "num_encoders": 2, "num_trials": 2},
        "serve": {
            "host": "0.0.0.0",
            "port": PORT,
            "allowed_hosts": doors,
            "num_replicas": len(doors),
            "cpus": 0.4,
            "large": {"num_replicas": 2, "cpus": 0.4},
            "feedback": {"url": cluster.log},
        },
    }


def prepare(cluster: HostCluster) -> None:
    """Put the rows into the bucket, and the configuration on the laptop."""
    content = io.BytesIO()
    rows().to_parquet(content)
    cluster.upload("rows.parquet", content.getvalue())
    cluster.laptop.write(CONFIG, yaml.safe_dump(configuration(cluster)))


def submit(cluster: HostCluster, *words: str) -> str:
    """Submit the run from the laptop and follow it; its output. AssertionError where it fails."""
    ended = cluster.kcm("submit", CONFIG, "--address", cluster.dashboard, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


def on_one_machine(cluster: HostCluster) -> dict[str, Any]:
    """The result of the same run on the laptop alone."""
    local = {"storage_path": f"{HOME}/storage", "tracking.uri": "null", "serve.feedback.url": "null"}
    words = [word for key, value in local.items() for word in ("--set", f"{key}={value}")]
    ended = cluster.kcm("run", CONFIG, *words)
    assert ended.returncode == 0, ended.stdout + ended.stderr
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
    cluster.laptop.write("inputs.json", json.dumps([{"features": item} for item in items]))
    return urls


def wait_until_ready(cluster: HostCluster, urls: list[str], timeout_s: float = 180) -> None:
    """Wait until every door answers."""
    deadline = time.monotonic() + timeout_s
    script = "import sys, urllib.request\nfor url in sys.argv[1:]: urllib.request.urlopen(url + '/readyz', timeout=5)"
    while cluster.laptop.run(sys.executable, "-c", script, *urls, check=False).returncode:
        assert time.monotonic() < deadline, cluster.laptop.run("serve", "status", "-a", cluster.dashboard).stdout
        time.sleep(2)


@contextmanager
def requests(cluster: HostCluster, urls: list[str], seconds: float) -> Iterator[dict[str, float]]:
    """Requests while the block is carried out; the dict is filled at its end."""
    found: dict[str, float] = {}
    words = [sys.executable, "-m", "benchmarks.hosts_load", "inputs.json", str(seconds), *urls]
    process = cluster.laptop.start(words)
    assert process.stderr is not None
    assert process.stderr.readline() == "ready\n"
    yield found
    out, err = process.communicate(timeout=seconds + 120)
    assert process.returncode == 0, err
    found |= json.loads(out)


def a_worker_is_killed(cluster: HostCluster) -> None:
    """The last worker loses power."""
    cluster.workers[list(cluster.workers)[-1]].power_off()


def a_link_is_cut(cluster: HostCluster) -> None:
    """Nothing reaches a worker for 20 s."""
    with cluster.net.cut(cluster.workers[list(cluster.workers)[1]]):
        time.sleep(20)


def silent(program: str, seconds: float) -> Callable[[HostCluster], None]:
    """A service beside the cluster says nothing for a while."""

    def fault(cluster: HostCluster) -> None:
        cluster.store.run("bash", "-c", f"kill -STOP $(pgrep {program})")
        time.sleep(seconds)
        cluster.store.run("bash", "-c", f"kill -CONT $(pgrep {program})")

    return fault


FAULTS: dict[str, Callable[[HostCluster], None]] = {"link": a_link_is_cut, "worker": a_worker_is_killed}
MORE_FAULTS = {"database": silent("postgres", 20), "bucket": silent("weed", 30)}


def answered(
    cluster: HostCluster, urls: list[str], fault: Callable[[HostCluster], None], seconds: float = 40
) -> dict[str, float]:
    """Shares of requests answered while a fault comes after five seconds."""
    with requests(cluster, urls, seconds) as found:
        time.sleep(5)
        fault(cluster)
    return found


def main() -> None:
    """Print the figures."""
    if reason := why_no_hosts():
        raise SystemExit(reason)
    faults = FAULTS if "--quick" in sys.argv else MORE_FAULTS | FAULTS
    with cluster_on_hosts(3) as cluster:
        prepare(cluster)
        submit(cluster)
        there = content(json.loads(cluster.download("storage/runs/hosts/result.json")))
        urls = deploy(cluster)
        found = {name: answered(cluster, urls, fault) for name, fault in faults.items()}
        here = on_one_machine(cluster)
    for name, figures in found.items():
        print(name, figures, file=sys.stderr)
    shares = {name: figures["answered"] for name, figures in found.items()}
    wrong = sum(int(figures["wrong"]) for figures in found.values())
    print(json.dumps({"equal": there == here, "answered": shares, "wrong": wrong}))


if __name__ == "__main__":
    main()
