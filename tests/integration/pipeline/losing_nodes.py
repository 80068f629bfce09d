"""A Ray cluster of several raylets in one process, and trainings on it that lose nodes; run by test_train.py.

It is a process of its own because a process can be connected to one Ray cluster only, and the session has its own.
"""

import json
import os
import pickle
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
from ray.cluster_utils import Cluster

from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected, prepare_environment
from pipelines.progress import Reporter
from pipelines.store.checkpoint import CHECKPOINTS
from pipelines.store.storage import Storage
from pipelines.training.driver import run_workers
from pipelines.training.worker import PROGRESS, TrainerPlan, WorkerPlan

NODE = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
CHECKPOINT_EVERY = 40
Progress = dict[str, int]


class Nodes:
    """Worker nodes with one CPU each, of which any can be lost, beside a head without CPUs, which runs the driver."""

    def __init__(self, count: int) -> None:
        quick = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}  # to see that a node is gone
        head = NODE | {"num_cpus": 0, "include_dashboard": False, "_system_config": quick}
        self.cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self.cluster.add_node(**NODE) for _ in range(count)]

    def lose(self, pid: int) -> None:
        """Kill the raylet that process `pid` belongs to, and with it all of its processes."""
        ancestors = {parent.pid for parent in psutil.Process(pid).parents()}
        lost = next(node for node in self._nodes if ancestors & _raylets(node))
        self.cluster.remove_node(lost, allow_graceful=False)
        self._nodes.remove(lost)


def _raylets(node: Any) -> set[int]:
    return {info.process.pid for info in node.all_processes["raylet"]}


def train(plan: TrainerPlan, storage: Path, cluster: ClusterConfig) -> dict[str, Any]:
    with Reporter().bar("train", "steps") as bar:
        return run_workers(
            WorkerPlan(plan, "this", Storage.at(storage), checkpoint_every=CHECKPOINT_EVERY), cluster, bar, print
        )


@contextmanager
def meanwhile(work: Callable[[], None]) -> Iterator[None]:
    """Do `work` in a thread; its failure is the block's failure."""
    failures: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    yield
    thread.join()
    if failures:
        raise failures[0]


def progress_when(storage: Path, ready: Callable[[Progress], bool], timeout_s: float = 400) -> Progress:
    """What rank 0 last showed, once that is `ready`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            progress: Progress = json.loads((storage / PROGRESS).read_text())
        except (OSError, ValueError):
            progress = {}
        if progress and ready(progress):
            return progress
        time.sleep(0.01)
    raise AssertionError(f"the workers never came so far, at last {progress}")


def mid_task(storage: Path) -> Progress:
    """Wait for the middle of the first task, of 400 steps: progress is shown a few times a second."""
    return progress_when(storage, lambda now: now["steps"] >= 100)


def right_after_a_checkpoint(storage: Path) -> Progress:
    """Wait for a checkpoint that was not there before."""
    progress = mid_task(storage)
    pattern = f"{CHECKPOINTS}/*.pt"
    before = set(storage.rglob(pattern))  # of which the worker removes all but the newest
    while set(storage.rglob(pattern)) <= before:
        time.sleep(0.002)
    return progress


def losing(
    nodes: Nodes, moment: Callable[[Path], Progress], plan: TrainerPlan, storage: Path, cluster: ClusterConfig
) -> dict[str, Any]:
    """Train, and lose the node of rank 0 when `moment` comes; the state, and the progress before and after."""
    seen: list[Progress] = []

    def lose() -> None:
        seen.append(moment(storage))
        nodes.lose(seen[0]["pid"])
        seen.append(progress_when(storage, lambda now: now["pid"] != seen[0]["pid"]))

    with meanwhile(lose):
        state = train(plan, storage, cluster)
    return {"state": state, "seen": seen}


def main(plan_file: Path, folder: Path) -> None:
    plan: TrainerPlan = pickle.loads(plan_file.read_bytes())
    os.environ["RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S"] = "5"  # how long a lost node may still be waited for
    prepare_environment()
    nodes = Nodes(3)
    cluster = ClusterConfig(address=nodes.cluster.address, cpus_per_worker=1)
    elastic = cluster.model_copy(update={"num_workers": (1, 2)})
    with connected(cluster):
        results = {
            "fixed": losing(nodes, mid_task, plan, folder / "fixed", cluster),
            "elastic": losing(nodes, right_after_a_checkpoint, plan, folder / "elastic", elastic),
        }
    (folder / "results.pickle").write_bytes(pickle.dumps(results))
    nodes.cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
