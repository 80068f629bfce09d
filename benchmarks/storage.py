"""A run's storage: a bucket against a local disk, kills at random moments, a finished artefact of many files, nodes.

python benchmarks/storage.py compare           the whole main job on SeaweedFS of this machine, and on its disk
python benchmarks/storage.py kills --count 60  driver, train worker, node or storage server killed at random moments
python benchmarks/storage.py hit --files 8000  finding a finished artefact again, on both
python benchmarks/storage.py nodes             the job on one node of one CPU, and on four with four train workers
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from machine import machine
from ray.cluster_utils import Cluster

from pipelines.store.artefact import ArtefactStore, Recipe
from tests.integration.pipeline.losing_nodes import NODE
from tests.integration.pipeline.test_storage import content
from tests.object_store import bucket
from tests.outside import install_extension
from tests.seaweed import KEY, SECRET, ObjectServer
from tests.spoken import spoken_config

TARGETS = ("driver", "worker", "node", "server")
MOST_S = 600  # of a job that was hit and should end, or go on


class Job:
    """The small main job of the tests as a process of its own, with everything that it needs below one folder."""

    def __init__(self, folder: Path, storage: str) -> None:
        folder.mkdir()
        self.folder = folder
        (folder / "package").mkdir()
        install_extension(folder / "package")
        sys.path.insert(0, str(folder / "package"))  # the configuration names classes of it
        self.config = spoken_config(storage, folder)
        values = self.config.model_dump(mode="json")
        (folder / "run.yaml").write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")

    @property
    def paths(self) -> str:
        """Where Python finds what the configuration names, and this checkout."""
        return os.pathsep.join([str(self.folder / "package"), str(Path(__file__).parents[1])])

    @property
    def log(self) -> str:
        """What it has printed."""
        return (self.folder / "log.txt").read_text()

    def start(self, *settings: str) -> subprocess.Popen[bytes]:
        """Start the job with `settings`, as `--set` takes them; its node's folder is its own."""
        own = {"PYTHONPATH": self.paths, "KCM_CACHE": str(self.folder / "node")}
        with (self.folder / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "jobs.cli", "run", str(self.folder / "run.yaml")]
                + [word for setting in settings for word in ("--set", setting)],
                env=os.environ | own,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def finish(self, *settings: str) -> float:
        """Run the job to its end; the seconds that it took."""
        started = time.perf_counter()
        if code := self.start(*settings).wait():
            raise RuntimeError(f"the job ended with {code}: {self.log[-2000:]}")
        return time.perf_counter() - started


def compare(folder: Path, server: ObjectServer, rounds: int) -> None:
    """Print the median seconds of the whole job, and of its second run, on both kinds of storage."""
    took: dict[str, list[tuple[float, float]]] = {"disk": [], "bucket": []}
    for number in range(rounds):
        for kind, seconds in took.items():
            place = bucket(server.url, "compare", KEY, SECRET) if kind == "bucket" else str(folder / f"disk-{number}")
            job = Job(folder / f"{kind}-job-{number}", place)
            seconds.append((job.finish(), job.finish()))
    print("| storage | first run, s | second run, s |\n|---|---|---|")
    medians = {kind: [statistics.median(column) for column in zip(*each, strict=True)] for kind, each in took.items()}
    for kind, (first, second) in medians.items():
        print(f"| {kind} | {first:.1f} | {second:.1f} |")
    ratios = [bucket_s / disk_s for bucket_s, disk_s in zip(medians["bucket"], medians["disk"], strict=True)]
    print(f"| ratio | {ratios[0]:.2f} | {ratios[1]:.2f} |")


def kills(folder: Path, server: ObjectServer, count: int, seed: int) -> None:
    """Kill one of the targets at a random moment, continue, and print whether the artefacts are those of no kill.

    A job that has ended before its moment says how long a job takes now, and another one is started.
    """
    reference = Job(folder / "reference", str(folder / "storage"))
    whole_s, expected = reference.finish(), content(reference.config)
    rng, same, number = random.Random(seed), 0, 0
    # One bucket for all jobs: each new one takes seven of the server's hundred volumes.
    place = bucket(server.url, "kills", KEY, SECRET)
    for started in range(4 * count):
        target, moment_s = TARGETS[number % len(TARGETS)], rng.uniform(0.1, 0.95) * whole_s
        job = Job(folder / f"killed-{started}", f"{place}/{started}")
        begun = time.perf_counter()
        if not _kill(job, server, target, moment_s):
            whole_s = time.perf_counter() - begun
            continue
        job.finish()
        equal = content(job.config) == expected
        same, number = same + equal, number + 1
        print(f"{number}: {target} killed at {moment_s:.1f} of about {whole_s:.0f} s, same: {equal}", flush=True)
        if number == count:
            break
    print(f"{same} of {number} end with the same artefacts")


def _kill(job: Job, server: ObjectServer, target: str, moment_s: float) -> bool:
    """Start the job, kill the target at a moment or as soon after it as there is one, and wait for the job to end."""
    process, started = job.start(), time.monotonic()
    hit = False
    while process.poll() is None:
        if not hit and time.monotonic() - started >= moment_s:
            hit = _killed(process.pid, server, target)
        if time.monotonic() - started > MOST_S:
            print(f"the job hangs after its {target} was killed", flush=True)
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.1)
    if not hit and process.returncode:
        raise RuntimeError(f"a job that nobody killed ended with {process.returncode}: {job.log[-2000:]}")
    return hit


def _killed(driver: int, server: ObjectServer, target: str) -> bool:
    if target == "driver":
        os.killpg(driver, signal.SIGKILL)
        return True
    if target == "server":
        server.kill()
        time.sleep(2)
        server.start()
        return True
    found = [each for each in psutil.Process(driver).children(recursive=True) if _is(each, target)]
    for each in found:
        each.kill()
    return bool(found)


def _is(process: psutil.Process, target: str) -> bool:
    """Whether a process is a train worker, or the raylet, with which a node ends."""
    try:
        command = process.cmdline()
    except psutil.Error:
        return False
    if target == "node":
        return bool(command) and Path(command[0]).name == "raylet"
    return "RayTrainWorker" in " ".join(command)


def hit(folder: Path, server: ObjectServer, num_files: int) -> None:
    """Print the seconds in which a finished artefact of many files is found again."""

    def write(attempt: Path, scratch: Path) -> None:
        for number in range(num_files):
            (attempt / f"task-{number:05d}.parquet").write_bytes(b"x" * 1000)

    for kind, place in {"disk": str(folder / "storage"), "bucket": bucket(server.url, "hit", KEY, SECRET)}.items():
        store, recipe = ArtefactStore(place), Recipe("features", 1, {})
        store.build(recipe, write)
        started = time.perf_counter()
        assert store.find(recipe) is not None
        print(f"{kind}: {num_files} files found again in {time.perf_counter() - started:.2f} s")


def nodes(folder: Path) -> None:
    """Print the seconds of the job on one node and on four, and whether the artefacts are the same to the digit."""
    made = {}
    for count in (1, 4):
        job = Job(folder / f"nodes-{count}", str(folder / f"storage-{count}"))
        os.environ["PYTHONPATH"] = job.paths  # of the nodes
        cluster = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0, "include_dashboard": False})
        for _ in range(count):
            cluster.add_node(**NODE)
        sizes = {"num_workers": count, "num_encoders": count, "num_trials": count, "cpus_per_worker": 1}
        place = f"cluster.address={cluster.address}"
        seconds = job.finish(place, *(f"cluster.{name}={size}" for name, size in sizes.items()))
        made[count] = content(job.config)
        print(f"{count} nodes of one CPU: {seconds:.1f} s", flush=True)
        cluster.shutdown()
    for name, value in made[1].items():
        print(f"{name}: {'the same to the digit' if value == made[4][name] else _distance(value, made[4][name])}")


def _distance(weights: Mapping[str, list[Any]], others: Mapping[str, list[Any]]) -> str:
    """How far tensors are apart by name."""
    apart = max(float(np.abs(np.array(weights[name]) - np.array(others[name])).max()) for name in weights)
    return f"no number is farther off than {apart:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("section", choices=("compare", "kills", "hit", "nodes"))
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of kills")
    parser.add_argument("--files", type=int, default=8000)
    arguments = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory(prefix="kcm-storage-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        server = ObjectServer(folder / "server")
        os.environ.update(server.environment() | {"KCM_CACHE": str(folder / "node")})
        server.start()
        try:
            match arguments.section:
                case "compare":
                    compare(folder, server, arguments.rounds)
                case "kills":
                    kills(folder, server, arguments.count, arguments.seed)
                case "hit":
                    hit(folder, server, arguments.files)
                case "nodes":
                    nodes(folder)
        finally:
            server.kill()


if __name__ == "__main__":
    main()
