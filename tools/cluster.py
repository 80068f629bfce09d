#!/usr/bin/env python3
"""The whole pipeline on a cluster of three nodes on this machine; a worker is killed, a node lost (`make cluster`).

    python tools/cluster.py          # ends its nodes when it has printed what happened
    python tools/cluster.py --keep   # leaves dashboard, MLflow and service open until Ctrl-C

A job trains and searches on the cluster, and one of its train workers is killed. The same run then trains with one
worker elsewhere: its result must be the same. The cascade answers requests while one of its nodes is killed.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import httpx
import pyarrow.parquet as pq
import yaml
from rich.console import Group

from jobs.views.table import beside_view, learned_view, line, result_console
from kcm.config import load_config
from kcm.report.formats import duration, percent
from kcm.report.reading import deployed as of_deployed
from kcm.report.summary import promise
from pipelines.config import RunConfig
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.training.worker import PROGRESS
from tools.nodes import Node, Nodes, free_ports, nodes

ROOT = Path(__file__).parent.parent
CONFIG = ROOT / "jobs/configs/cluster.yaml"
NUM_WORKERS, CPUS = 2, 2  # nodes beside the head; logical CPUs of each. One of them can hold the whole service
NUM_REQUESTS, NUM_CLIENTS = 2000, 8
KCM = (sys.executable, "-m", "jobs.cli")
COMPARED = (
    "kcm",
    "mcm",
    "certificate",
    "deployed",
)  # of two results: all that was learned, chosen, proved and measured
TOLERANCE = 1e-6
REUSED = ("tasks", "features", "outcomes")  # stages whose artefacts the second run takes over


@dataclass
class Killer(threading.Thread):
    """Kills the first train worker of a run when a third of its steps are done."""

    storage: Path
    killed: str = ""  # whom, and when
    over: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        super().__init__(daemon=True)

    __hash__ = threading.Thread.__hash__

    def run(self) -> None:
        """Wait for the steps, then kill."""
        while not self.over.wait(0.1):
            for file in self.storage.rglob(PROGRESS):
                with suppress(OSError, ValueError):
                    progress = json.loads(file.read_bytes())
                    if 3 * progress["steps"] >= progress["total"]:
                        os.kill(progress["pid"], signal.SIGKILL)
                        self.killed = (
                            f"rank 0 of {progress['workers']} after {progress['steps']} of {progress['total']} steps"
                        )
                        return


@dataclass
class Requests:
    """Requests that clients send to a service, each once more if the first try fails."""

    url: str
    texts: list[str]
    routes: Counter[str] = field(default_factory=Counter)
    num_repeated: int = 0
    num_lost: int = 0

    def send(self, number: int) -> None:
        """Send so many, by several clients at once."""
        texts = list(islice(cycle(self.texts), number))
        with httpx.Client(timeout=60.0) as http, ThreadPoolExecutor(NUM_CLIENTS) as clients:
            list(clients.map(lambda text: self._ask(http, text), texts))

    def _ask(self, http: httpx.Client, text: str) -> None:
        for attempt in range(2):
            with suppress(httpx.HTTPError):
                answer = http.post(f"{self.url}/v1/predict", json={"inputs": [{"text": text}]})
                if answer.status_code == 200:
                    self.routes[answer.json()["answers"][0]["route"]] += 1
                    return
            if not attempt:
                self.num_repeated += 1
                time.sleep(1)
        self.num_lost += 1


def call(command: list[str] | str, log: Path, environment: dict[str, str], show: str | None = None) -> None:
    """Run a command with its output in `log`, and its lines that begin with one of the words `show` on the screen.

    Raises SystemExit with the end of the log if it fails.
    """
    with (
        log.open("a", encoding="utf-8") as output,
        subprocess.Popen(
            command,
            shell=isinstance(command, str),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process,
    ):
        assert process.stdout is not None
        for each in process.stdout:
            output.write(each)
            if show and each.split(maxsplit=1)[:1] and each.split(maxsplit=1)[0] in show.split():
                print(f"  {each.rstrip()}", flush=True)
    if process.returncode:
        sys.exit(f"error: {log} ends with\n{log.read_text(encoding='utf-8')[-3000:]}")


def trained(cluster: Nodes, folder: Path, config: RunConfig) -> tuple[dict[str, Any], str]:
    """The result of the job, and what was killed meanwhile."""
    killer = Killer(folder / "storage")
    killer.start()
    where = ["--address", cluster.dashboard, "--set", f"storage_path={folder / 'storage'}"]
    submit = shlex.join([*KCM, "submit", str(CONFIG), *where, "--set", "cluster.address=auto"])
    call(
        f"{submit} | sh",
        folder / "job.log",
        cluster.environment,
        "tasks features outcomes train tune evaluate register",
    )
    killer.over.set()
    killer.join()
    return result_of(folder / "storage", config.name), killer.killed


def result_of(storage: Path, name: str) -> dict[str, Any]:
    """The result of the run `name`."""
    result: dict[str, Any] = json.loads((storage / "runs" / name / "result.json").read_bytes())
    return result


def trained_alone(folder: Path, config: RunConfig) -> dict[str, Any]:
    """The result of the same run on the same rows, vectors and large answers, with one worker."""
    for stage in REUSED:
        shutil.copytree(folder / "storage/artefacts" / stage, folder / "alone/artefacts" / stage)
    shutil.copy(folder / "storage/layout", folder / "alone/layout")
    command = [*KCM, "run", str(CONFIG), "--set", f"storage_path={folder / 'alone'}", "--set", "cluster.num_workers=1"]
    call(command, folder / "alone.log", dict(os.environ), "train tune evaluate")
    return result_of(folder / "alone", config.name)


def agree(one: Any, other: Any) -> bool:
    """Whether two results are equal, floats within `TOLERANCE`: two workers sum in another order than one."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(agree(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(agree, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, abs_tol=TOLERANCE)
    return bool(one == other)


def texts_of(storage: Path) -> list[str]:
    """The test texts of a run."""
    files = sorted(storage.glob("artefacts/tasks/*/attempt-*/task-*.parquet"))
    return [row["text"] for file in files for row in pq.read_table(file).to_pylist() if row["split"] == "test"]


def deploy(cluster: Nodes, folder: Path, num_replicas: int) -> str:
    """Deploy the cascade; its address, once it is ready."""
    (port,) = free_ports(1)
    file, url = folder / "serve.yaml", f"http://127.0.0.1:{port}"
    where = ["--set", f"storage_path={folder / 'storage'}", "--set", f"serve.port={port}"]
    # For several replicas kcm refuses SQLite, since nodes elsewhere would be other machines.
    one = ["--set", "serve.num_replicas=1", "--build", str(file)]
    call([*KCM, "serve", str(CONFIG), *where, *one], folder / "deploy.log", cluster.environment)
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    values["applications"][0]["args"]["serve"]["num_replicas"] = num_replicas
    file.write_text(yaml.safe_dump(values), encoding="utf-8")
    call(["serve", "deploy", str(file), "--address", cluster.dashboard], folder / "deploy.log", cluster.environment)
    until = time.monotonic() + 300
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return url
        time.sleep(0.5)
    sys.exit(f"error: the service at {url} is not ready after 300 s")


def served(cluster: Nodes, url: str, texts: list[str]) -> Requests:
    """What became of the requests, while a node with a replica was lost."""
    requests = Requests(url, texts)
    sending = threading.Thread(target=requests.send, args=(NUM_REQUESTS,))
    sending.start()
    while sending.is_alive() and requests.routes.total() < NUM_REQUESTS // 4:
        time.sleep(0.05)
    lost: Node = next(node for node in cluster.workers if node.runs("ServeReplica"))
    lost.stop()
    sending.join()
    return requests


def view(result: dict[str, Any], killed: str, is_equal: bool, requests: Requests, seconds: float) -> Group:
    """What happened, on one screen."""
    answered, large = requests.routes.total(), requests.routes["large"]
    certificate, policy = result["certificate"], of_deployed(result)[1]["policy"]
    return Group(
        *learned_view(result),
        beside_view(result),
        line("threshold", f"{certificate['threshold']:.3f} of the gate '{policy['gate']}'"),
        line("guarantee", f"{promise(certificate)}."),
        line("killed", f"{killed}; the training went on from the last checkpoint" if killed else "NO worker"),
        line("equal", f"to one process: {'yes' if is_equal else 'NO'}"),
        line(
            "served",
            f"{answered:,} of {NUM_REQUESTS:,} requests answered while a node with a replica was lost, "
            f"{requests.num_repeated} of them at the second try; {percent(1 - large / answered)} of the calls saved",
        ),
        line("time", duration(seconds)),
    )


def left_open(cluster: Nodes, url: str, folder: Path) -> None:
    """Show the three addresses until Ctrl-C."""
    (port,) = free_ports(1)
    database = f"sqlite:///{folder / 'storage/mlflow.db'}"
    command = ["mlflow", "ui", "--backend-store-uri", database, "--port", str(port)]
    with (folder / "mlflow.log").open("wb") as log:
        mlflow = Node(
            subprocess.Popen(command, env=cluster.environment, stdout=log, stderr=log, start_new_session=True), port
        )
    token = Path(cluster.environment["RAY_AUTH_TOKEN_PATH"]).read_text(encoding="utf-8")
    print(f"dashboard  {cluster.dashboard} (token {token})\nMLflow     http://127.0.0.1:{port}\nservice    {url}")
    print("Ctrl-C ends them", flush=True)
    try:
        with suppress(KeyboardInterrupt):
            signal.pause()
    finally:
        mlflow.stop()


def main() -> None:
    """Run all, and print one screen; fail if a request was lost or a result differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", action="store_true", help="leave the addresses open until Ctrl-C")
    keep, config, started = parser.parse_args().keep, load_config(RunConfig, CONFIG), time.monotonic()
    prepare_environment()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the nodes end too
    with tempfile.TemporaryDirectory(prefix="kcm-", ignore_cleanup_errors=True) as home:
        folder = Path(home)
        print(f"starting a head and {NUM_WORKERS} nodes; logs are in {folder}", flush=True)
        with nodes(folder, NUM_WORKERS, CPUS) as cluster:
            print("the job:", flush=True)
            result, killed = trained(cluster, folder, config)
            print("deploying:", flush=True)
            url = deploy(cluster, folder, config.serve.num_replicas)
            requests = served(cluster, url, texts_of(folder / "storage"))
            print("the same run with one worker:", flush=True)
            alone = trained_alone(folder, config)
            is_equal = agree({key: alone[key] for key in COMPARED}, {key: result[key] for key in COMPARED})
            result_console().print(view(result, killed, is_equal, requests, time.monotonic() - started))
            if keep:
                left_open(cluster, url, folder)
    sys.exit(0 if killed and is_equal and not requests.num_lost else 1)


if __name__ == "__main__":
    main()
