"""The main job and the service on several hosts of this machine, under faults. Needs root.

python -m benchmarks.cluster [--quick | --only NAME,...]     # ends with one line of JSON

    equal     whether the run on three workers and a bucket has the result of the same run on one machine
    runs      by fault: whether the result is that of the undisturbed run, and questions that were paid for twice
    answered  by fault: share of requests that were answered, with one retry at another replica
    wrong     answers that are not those of the version that they name; lost: labels that were taken, and are not there

A line on stderr gives the seconds of each phase. Where one fails, `failed` says why, and the exit is 1.
"""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray
from PIL import Image

from benchmarks.hosts import HOME, SUBNET, Host
from benchmarks.hosts_cluster import BUCKET, HostCluster, cluster_on_hosts, nodes_on_hosts, why_no_cluster
from benchmarks.hosts_load import REPLICAS
from benchmarks.script import options

LABELS = ("bank", "card", "loan", "other")
DIM, SIDE, NUM_ROWS, PORT = 8, 3, 1_200, 8000
VECTORS = {"kind": "precomputed", "columns": ["f_*"]}
EQUAL = (
    "accuracy_matrix",
    "policy",
    "overall",
    "tasks",
    "continual",
)  # keys of a result that must be equal wherever the run works
CONFIG, DEPLOYMENT, INPUTS = "run.yaml", "serve.yaml", "inputs.json"
QUICK_S = 14 * 60  # after which --quick gives up, and prints what it has
Moment = Callable[[HostCluster, str], Host | None]  # when it has come, the host to which something happens
Happening = Callable[[HostCluster, Host], None]
BEFORE_S, AFTER_S = 3.0, 12.0  # how long requests are sent before a fault, and after it
STEPS, STEP_S = 4, 10.0  # in which traffic moves to another cluster


def rows() -> pd.DataFrame:
    """Rows of four labels whose vectors say most of it."""
    rng = np.random.default_rng(0)
    label_N = rng.integers(0, len(LABELS), NUM_ROWS)
    vector_ND = rng.normal(size=(NUM_ROWS, DIM)).astype(np.float32)
    vector_ND[np.arange(NUM_ROWS), label_N] += 3.0
    vectors = {f"f_{number}": vector_ND[:, number] for number in range(DIM)}
    labels = [LABELS[label] for label in label_N]
    texts = [f"row {number} is about {label}" for number, label in enumerate(labels)]
    ids = [f"row {number}" for number in range(NUM_ROWS)]
    pictures = [png(vector_D) for vector_D in vector_ND]
    return pd.DataFrame(vectors | {"id": ids, "text": texts, "image": pictures, "label": labels})


def png(vector_D: NDArray[np.float32]) -> bytes:
    """A grey picture of SIDE x SIDE pixels, which are the numbers of a vector."""
    grey_S = np.resize(np.clip(128 + 24 * vector_D, 0, 255).astype(np.uint8), SIDE * SIDE)
    file = io.BytesIO()
    Image.fromarray(grey_S.reshape(SIDE, SIDE)).save(file, "PNG")
    return file.getvalue()


def configuration(cluster: HostCluster) -> dict[str, Any]:
    """A run whose every stage has work for several nodes, on rows in the bucket."""
    source = {"kind": "files", "path": "s3://kcm/rows.parquet", "text_column": None, "id_column": "id"}
    return {
        "name": "hosts",
        "storage_path": cluster.storage,
        "tasks": {"source": source, "scenario": "class_incremental", "num_tasks": 2},
        "encoder": VECTORS,
        "large": {"adapter": "classifier", "encoder": VECTORS},
        "collaborators": ["kcm"],
        "network": {"hidden": [4]},
        "learner": {"name": "replay", "memory": 100},
        "train": {"num_epochs": 4, "mask_unseen": True},
        "tune": {"num_trials": 3, "gates": ["signals"], "learning_rates": [0.003, 0.01], "large_weights": [1.0]},
        "certificate": {"epsilon": 0.1},
        "tracking": {"uri": cluster.mlflow},
        "cluster": {"num_workers": [2, 2], "num_encoders": 2},  # two at least, though one were faster
        "serve": {
            "host": "0.0.0.0",
            "port": PORT,
            "allowed_hosts": [f"{SUBNET}.{number}" for number in range(10, 30)],  # hosts of a second cluster as well
            "num_replicas": len(cluster.workers),
            "cpus": 0.4,
            # Well below what a client waits: a call to a node that is gone is given up, and made again elsewhere.
            "large": {"num_replicas": 2, "cpus": 0.4, "attempt_timeout_s": 3},
            "feedback": {"url": cluster.log},
        },
    }


def prepare(cluster: HostCluster) -> None:
    """Put the rows into the bucket, and the configuration on the laptop."""
    rows().to_parquet(cluster.laptop.file("rows.parquet"))
    cluster.bucket("-T", "rows.parquet", cluster.url("rows.parquet"))
    cluster.laptop.file(CONFIG).write_text(yaml.safe_dump(configuration(cluster)))


def sets(values: Mapping[str, Any]) -> list[str]:
    """Options that override values of the configuration."""
    return [word for key, value in values.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def local(name: str) -> list[str]:
    """Options of a run whose host needs no other."""
    return sets({"storage_path": f"{HOME}/{name}", "tracking.uri": None, "serve.feedback.url": None})


def paid(cluster: HostCluster, name: str) -> list[str]:
    """Options of a run that encodes pictures and pays for its large model; name, storage and model are its own."""
    return sets(
        {
            "name": name,
            "storage_path": f"{BUCKET}{name}",
            "tasks.source.text_column": "text",
            "tasks.source.image_column": "image",
            "encoder": {"kind": "pixels", "side": SIDE, "color": "grey"},
            "large": {"adapter": "openai", "base_url": cluster.paid, "model": name, "api_key_env": None},
        }
    )


def start(cluster: HostCluster, log: str, *words: str) -> subprocess.Popen[str]:
    """Start a command of the product on the laptop."""
    return cluster.laptop.start([sys.executable, "-m", "jobs.cli", *words], log)


def submit(cluster: HostCluster, log: str, *options: str) -> subprocess.Popen[str]:
    """Submit the run from the laptop, which follows it."""
    words = [sys.executable, "-m", "jobs.cli", "submit", CONFIG, "--address", cluster.dashboard, *options]
    return cluster.laptop.start(["sh", "-c", f"{shlex.join(words)} | sh"], log)


def wait(cluster: HostCluster, log: str, started: subprocess.Popen[str]) -> None:
    """Wait for a command to end. AssertionError if it fails."""
    assert started.wait(timeout=600) == 0, cluster.laptop.file(log).read_text()[-4000:]


def result(cluster: HostCluster, storage: str, name: str = "hosts") -> dict[str, Any]:
    """What must be equal of the result of a run in a storage."""
    path = f"{storage}/runs/{name}/result.json"
    in_bucket = storage.startswith(BUCKET)
    text = (
        cluster.bucket(cluster.url(path.removeprefix(BUCKET))) if in_bucket else cluster.laptop.file(path).read_text()
    )
    # Costs are seconds, which differ from run to run.
    result_values = json.loads(
        text, object_hook=lambda part: {key: cell for key, cell in part.items() if key != "cost_saved"}
    )
    return {name: result_values["kcm"][name] for name in EQUAL if name in result_values["kcm"]}


def deploy(cluster: HostCluster) -> None:
    """Serve the champion on the workers, whose HTTP replicas get all requests."""
    build = cluster.kcm("serve", CONFIG, "--build", DEPLOYMENT)
    assert build.returncode == 0, build.stderr
    deploy_file(cluster)
    direct(cluster, replica_urls(cluster))
    items = rows().head(40)[[f"f_{number}" for number in range(DIM)]].to_numpy().tolist()
    cluster.laptop.file(INPUTS).write_text(json.dumps([{"features": item} for item in items]))
    note_right_answers(cluster, cluster.workers["w1"])


def deploy_file(cluster: HostCluster) -> None:
    """Serve on a cluster what the file says, until every HTTP replica answers."""
    cluster.laptop.run("serve", "deploy", "--address", cluster.dashboard, DEPLOYMENT)
    wait_until_ready(cluster)


def replica_urls(cluster: HostCluster) -> list[str]:
    """The URL of each worker's HTTP replica."""
    return [f"http://{host.address}:{PORT}" for host in cluster.workers.values()]


def direct(cluster: HostCluster, urls: list[str]) -> None:
    """Have requests sent to these HTTP replicas in turn from now on."""
    new_file = cluster.laptop.file(f"{REPLICAS}.new")
    new_file.write_text("\n".join(urls))
    new_file.rename(cluster.laptop.file(str(REPLICAS)))


def note_right_answers(cluster: HostCluster, http_replica: Host) -> None:
    """Note the answers of the version that an HTTP replica serves as the right ones of that version."""
    cluster.laptop.run(sys.executable, "-m", "benchmarks.hosts_load", INPUTS, f"http://{http_replica.address}:{PORT}")


def wait_until_ready(cluster: HostCluster, timeout_s: int = 180) -> None:
    """Wait until every HTTP replica answers."""
    patience = ["--retry-all-errors", "--retry", "9999", "--retry-delay", "1", "--retry-max-time", str(timeout_s)]
    for url in replica_urls(cluster):
        response = cluster.laptop.run("curl", "-sSf", "--connect-timeout", "5", *patience, f"{url}/readyz", check=False)
        if response.returncode:
            status = cluster.laptop.run("serve", "status", "-a", cluster.dashboard).stdout
            raise AssertionError(f"{url} is not ready: {response.stderr[-300:]}\n{status}")


@contextmanager
def requests(cluster: HostCluster) -> Iterator[dict[str, Any]]:
    """Requests while the block is carried out; the dict is filled at its end."""
    outcome: dict[str, Any] = {}
    process = cluster.laptop.start([sys.executable, "-m", "benchmarks.hosts_load", INPUTS], stdin=subprocess.PIPE)
    try:
        assert process.stderr is not None
        assert process.stderr.readline() == "ready\n"
        yield outcome
        out, err = process.communicate(timeout=60)  # closes its input, which ends it
        assert process.returncode == 0, err
        sys.stderr.write(err)
        outcome |= json.loads(out)
    finally:
        process.kill()


def dies(seconds: float, cluster: HostCluster, host: Host) -> None:
    """A host loses power, and is started again after a while; then its node is in the cluster again."""
    host.power_off()
    time.sleep(seconds)
    host.power_on()
    if host is cluster.head:
        cluster.start_head()
    else:
        cluster.start_worker(host)
    cluster.wait_for_nodes(1 + len(cluster.workers))


def is_cut(seconds: float, cluster: HostCluster, host: Host) -> None:
    """Nothing reaches a host for a while."""
    cluster.net.cut(host, seconds)


def is_silent(program: str, seconds: float, cluster: HostCluster, host: Host) -> None:
    """A service outside the cluster is silent for a while."""
    cluster.store.run("pkill", "-STOP", program)
    try:
        time.sleep(seconds)
    finally:
        cluster.store.run("pkill", "-CONT", program)


def changes(cluster: HostCluster, host: Host) -> None:
    """Another version becomes the champion, and the one before it again."""
    for words in (["promote", CONFIG, "2"], ["rollback", CONFIG]):
        command = cluster.kcm(*words)
        assert command.returncode == 0, command.stdout + command.stderr
        note_right_answers(cluster, host)
        time.sleep(5)


def rolls(cluster: HostCluster, host: Host) -> None:
    """A second cluster of another image takes over in steps; half way, the champion changes. The first one ends."""
    before = replica_urls(cluster)
    new_nodes = nodes_on_hosts(cluster.net, cluster.store, cluster.laptop, len(cluster.workers), "new-")
    deploy_file(new_nodes)
    for step in range(1, STEPS + 1):
        direct(cluster, before * (STEPS - step) + replica_urls(new_nodes) * step)
        time.sleep(STEP_S)
        if 2 * step == STEPS:
            changes(cluster, host)
    cluster.laptop.run("serve", "shutdown", "--yes", "--address", cluster.dashboard)
    for node in (*cluster.workers.values(), cluster.head):
        node.power_off()
    cluster.head, cluster.workers = new_nodes.head, new_nodes.workers


def works(title: str) -> Moment:
    """When a worker runs a process of this title: to that worker."""
    command = ["pgrep", "-f", f"^ray::{title}"]
    return lambda cluster, run: next(
        (host for host in cluster.workers.values() if host.run(*command, check=False).returncode == 0), None
    )


def asked(num_questions: int) -> Moment:
    """The head, where the run's driver is, once so many questions were paid; None before."""
    return lambda cluster, run: cluster.head if len(cluster.asked(run)) >= num_questions else None


# What happens to a run, and when. Only where its driver is lost, it is submitted again.
RUNNING: Mapping[str, tuple[Moment, Happening]] = {
    "features": (works("MapWorker"), partial(dies, 5)),
    "outcomes": (asked(NUM_ROWS // 3), partial(dies, 5)),
    "train": (works("RayTrainWorker"), partial(dies, 5)),
    "train-bucket": (works("RayTrainWorker"), partial(is_silent, "weed", 30)),
    "tune": (works("Trial"), partial(dies, 5)),
}
# What happens while requests are sent, and to which host.
SERVING: Mapping[str, tuple[str, Happening]] = {
    "bucket": ("store", partial(is_silent, "weed", 30)),
    "database": ("store", partial(is_silent, "postgres", 20)),
    "champion": ("w1", changes),  # promotes a second version, made by `measure`
    "link": ("w2", partial(is_cut, 20)),
    "worker": ("w3", partial(dies, 20)),
    "head": ("head", partial(dies, 45)),
    "image": ("w1", rolls),  # the last one: the cluster is another one then
}
QUICK = ("train", "database", "link", "worker", "head")


def answered(cluster: HostCluster, fault: str) -> dict[str, Any]:
    """Shares of requests that are answered before, while and after something happens; then all are back."""
    host, happen = SERVING[fault]
    wait_until_ready(cluster)
    with requests(cluster) as outcome:
        time.sleep(BEFORE_S)
        happen(cluster, cluster.net.hosts[host])
        time.sleep(AFTER_S)
    end = time.monotonic()
    wait_until_ready(cluster)
    outcome["replicas_s"] = round(time.monotonic() - end, 1)
    outcome["lost"] = len(set(outcome.pop("labelled")) - cluster.stored_labels())
    return outcome


def disturbed(cluster: HostCluster, fault: str) -> tuple[dict[str, Any], int]:
    """The result of a disturbed run, and the number of questions paid twice."""
    moment, happen = RUNNING[fault]
    options = paid(cluster, fault)
    run = submit(cluster, f"{fault}.log", *options)
    while (host := moment(cluster, fault)) is None:
        assert run.poll() is None, "the run has ended before anything could happen to it"
        time.sleep(0.5)
    happen(cluster, host)
    if host is cluster.head and run.wait(timeout=600):
        run = submit(cluster, f"{fault}.log", *options)
    wait(cluster, f"{fault}.log", run)
    questions = cluster.asked(fault)
    return result(cluster, f"{BUCKET}{fault}", fault), len(questions) - len(set(questions))


@dataclass
class Report:
    """What has been measured so far, and why the rest is missing."""

    equal: bool | None = None
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: dict[str, dict[str, Any]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Print the seconds that the block takes; continue if it fails."""
        started, outcome = time.monotonic(), "stopped"
        try:
            yield
            outcome = "done"
        except Exception as error:
            outcome = "failed"
            self.failed[name] = f"{type(error).__name__}: {error}"[:2000]
        finally:
            seconds, load = time.monotonic() - started, os.getloadavg()[0]
            print(f"{name:10} {outcome} in {seconds:.0f} s, load {load:.1f}", file=sys.stderr, flush=True)

    def line(self) -> dict[str, Any]:
        """What is printed as JSON."""
        shares = {name: round(figures["answered"], 5) for name, figures in self.faults.items()}
        num_wrong, num_lost = (
            sum(figures[name] for figures in self.faults.values()) if self.faults else None
            for name in ("wrong", "lost")
        )
        line = {"equal": self.equal, "runs": self.runs, "answered": shares, "wrong": num_wrong, "lost": num_lost}
        return line | ({"failed": self.failed} if self.failed else {})


def measure(cluster: HostCluster, report: Report, faults: Set[str]) -> None:
    """Run and serve on a prepared cluster, and let these things happen to it; what fails leaves the others."""
    with report.phase("run"):
        alone = start(cluster, "alone.log", "run", CONFIG, *local("alone"))  # meanwhile: both wait for Python's imports
        wait(cluster, "run.log", submit(cluster, "run.log"))
    if report.failed:
        return
    with report.phase("reference"):
        wait(cluster, "alone.log", alone)
        report.equal = result(cluster, "alone") == result(cluster, cluster.storage)
    if running := [name for name in RUNNING if name in faults]:
        undisturbed = start(cluster, "paid.log", "run", CONFIG, *paid(cluster, "paid"), *local("paid"))  # meanwhile
        for name in running:
            with report.phase(name):
                measured_run, num_repeated = disturbed(cluster, name)
                wait(cluster, "paid.log", undisturbed)
                report.runs[name] = {"equal": measured_run == result(cluster, "paid", "paid"), "twice": num_repeated}
    if serving := [name for name in SERVING if name in faults]:
        if faults & {"champion", "image"}:
            with report.phase("version"):
                second_run = start(cluster, "second.log", "run", CONFIG, "--no-promote", *sets({"train.num_epochs": 2}))
                wait(cluster, "second.log", second_run)
        with report.phase("deploy"):
            deploy(cluster)
        for name in serving if "deploy" not in report.failed else ():
            with report.phase(name):
                report.faults[name] = answered(cluster, name)
                print(name, report.faults[name], file=sys.stderr)


def prepared(hosts: ExitStack) -> HostCluster:
    """A cluster with the rows in its bucket, until the hosts end."""
    cluster = hosts.enter_context(cluster_on_hosts(3))
    prepare(cluster)
    return cluster


def main() -> int:
    """Print the figures; 1 where some are missing."""
    parser = options(__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, within 15 minutes")
    parser.add_argument("--only", metavar="NAME,...", help=f"some of {', '.join([*RUNNING, *SERVING])}")
    arguments = parser.parse_args()
    faults = set(arguments.only.split(",") if arguments.only else QUICK if arguments.quick else [*RUNNING, *SERVING])
    if unknown := faults - RUNNING.keys() - SERVING.keys():
        parser.error(f"nothing is called {', '.join(sorted(unknown))}")
    if reason := why_no_cluster():
        raise SystemExit(reason)
    report = Report()
    for signal_number in (signal.SIGALRM, signal.SIGTERM):
        signal.signal(signal_number, signal.default_int_handler)
    signal.alarm(QUICK_S if arguments.quick else 0)
    try:
        with ExitStack() as hosts:
            with report.phase("cluster"):
                cluster = prepared(hosts)
            if not report.failed:
                measure(cluster, report, faults)
            signal.alarm(0)  # nothing may interrupt the end of the hosts
    except KeyboardInterrupt:
        report.failed["time"] = "stopped before its end"
    print(json.dumps(report.line()))
    return int(bool(report.failed))


if __name__ == "__main__":
    sys.exit(main())
