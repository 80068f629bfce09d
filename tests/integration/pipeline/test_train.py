"""Training on Ray ends with the same matrix whatever is killed on the way, and for any number of workers."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Reporter
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.storage import Storage
from pipelines.training.driver import run_workers
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan
from tests.integration.pipeline.losing_nodes import meanwhile, mid_task, progress_when
from tests.pipelines.made_parts import MadeFeatures, write_task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

CLUSTER = ClusterConfig()
DRIVER = """
import pickle, sys
from pathlib import Path
from pipelines.cluster.connection import connected
from pipelines.progress import Reporter
from pipelines.training.driver import run_workers
worker, cluster = pickle.loads(Path(sys.argv[1]).read_bytes())
with connected(cluster), Reporter().bar("train", "steps") as bar:
    run_workers(worker, cluster, bar, print)
"""


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> TrainerPlan:
    folder = tmp_path_factory.mktemp("tasks")
    config = TrainerConfig(
        collaborators=("kcm", "mcm"),
        network=NetworkConfig(hidden=(8,)),
        learner=ReplayConfig(memory=40, batch_size=16),
        train=TrainConfig(num_epochs=40, batch_size=50),
        distill=DistillConfig(),
        seed=0,
    )
    for number in range(3):
        write_task(folder, number)
    features = MadeFeatures("features", "made", folder / "features")
    return TrainerPlan(config, features, OutcomesArtefact("outcomes", "made", folder / "outcomes"))


def worker_plan(plan: TrainerPlan, storage: Path, fingerprint: str = "this") -> WorkerPlan:
    return WorkerPlan(plan, fingerprint, Storage.at(storage), checkpoint_every=40)


def train(
    worker: WorkerPlan, cluster: ClusterConfig = CLUSTER, say: Callable[[str], None] = print
) -> dict[str, dict[str, Any]]:
    with Reporter().bar("train", "steps") as bar:
        return run_workers(worker, cluster, bar, say)


@pytest.fixture(scope="module")
def undisturbed(plan: TrainerPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    return train(worker_plan(plan, tmp_path_factory.mktemp("undisturbed")))


def assert_same(state: dict[str, dict[str, Any]], expected: dict[str, dict[str, Any]]) -> None:
    for name in ("kcm", "mcm"):
        assert state[name]["accuracy"] == expected[name]["accuracy"]
        assert state[name]["learner"]["memory"]["ids"] == expected[name]["learner"]["memory"]["ids"]
        for key, tensor in expected[name]["collaborator"].items():
            torch.testing.assert_close(state[name]["collaborator"][key], tensor)


@pytest.mark.slow
def test_a_killed_driver_changes_nothing(plan, undisturbed, tmp_path) -> None:
    storage = tmp_path / "storage"
    (tmp_path / "plan.pickle").write_bytes(pickle.dumps((worker_plan(plan, storage), CLUSTER)))
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(tmp_path / "plan.pickle")], env=environment)
    try:
        progress = mid_task(storage)
    finally:
        driver.kill()
        driver.wait()
    assert progress["steps"] < 1000
    state = train(worker_plan(plan, storage))
    assert_same(state, undisturbed)
    assert not psutil.pid_exists(progress["pid"])


@pytest.mark.slow
def test_added_task_after_worker_kill_equals_a_full_run(plan, tmp_path) -> None:
    """Promise: a task that is added to finished ones may be interrupted, and still ends where one run would have."""
    masked = replace(
        plan,
        config=plan.config.model_copy(update={"train": TrainConfig(num_epochs=40, batch_size=50, mask_unseen=True)}),
    )
    parents, whole = {}, {}
    for name in plan.config.collaborators:
        earlier, all_tasks = (
            replace(masked, features=replace(plan.features, num_tasks=2)).trainer(name),
            masked.trainer(name),
        )
        earlier.run()
        all_tasks.run()
        whole[name] = all_tasks.state_dict()
        torch.save(earlier.state_dict(), tmp_path / f"{name}.pt")
        parents[name] = partial(Path, tmp_path / f"{name}.pt")
    storage, killed = tmp_path / "storage", []

    def kill() -> None:
        progress = progress_when(storage, lambda now: now["steps"] >= 850)  # of 1,200, 800 of which were taken before
        os.kill(progress["pid"], signal.SIGKILL)
        killed.append(progress["steps"])

    worker = replace(worker_plan(masked, storage), parents=parents)
    with meanwhile(kill):
        state = train(worker, CLUSTER.model_copy(update={"num_workers": 1}))
    assert 850 <= killed[0] < 1200
    assert_same(state, whole)


@pytest.mark.slow
def test_four_workers_end_where_two_do(plan, undisturbed, tmp_path) -> None:
    """Promise: the number of workers changes neither the matrix nor the memory, with an uneven last batch as here."""
    state = train(worker_plan(plan, tmp_path), CLUSTER.model_copy(update={"num_workers": 4, "cpus_per_worker": 0.25}))
    assert_same(state, undisturbed)


@pytest.fixture(scope="module")
def after_losses(plan: TrainerPlan, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What trainings ended with that lost a node: on a cluster of several raylets, in a process of its own."""
    folder = tmp_path_factory.mktemp("losses")
    (folder / "plan.pickle").write_bytes(pickle.dumps(plan))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    script = Path(__file__).parent / "losing_nodes.py"
    with tempfile.TemporaryDirectory(prefix="kcm-", ignore_cleanup_errors=True) as short:  # sockets lie below it
        subprocess.run(
            [sys.executable, str(script), str(folder / "plan.pickle"), str(folder)],
            env=ours | {"RAY_TMPDIR": short, "PYTHONPATH": str(Path(__file__).parents[3])},
            check=True,
            timeout=900,
        )
    return pickle.loads((folder / "results.pickle").read_bytes())


@pytest.mark.slow
def test_a_node_lost_mid_task_changes_nothing(after_losses, undisturbed) -> None:
    """Promise: the node of rank 0 may die in the middle of a task; the run goes on elsewhere to the same end."""
    lost, restarted = after_losses["fixed"]["seen"]
    assert lost["steps"] < 400 < restarted["total"]  # of the first of three tasks
    assert (lost["workers"], restarted["workers"]) == (2, 2)
    assert_same(after_losses["fixed"]["state"], undisturbed)


@pytest.mark.slow
def test_an_elastic_run_goes_on_with_the_nodes_that_are_left(after_losses, undisturbed) -> None:
    """Promise: a node lost right after a checkpoint takes one of two workers, and changes neither matrix nor memory."""
    lost, restarted = after_losses["elastic"]["seen"]
    assert (lost["workers"], restarted["workers"]) == (2, 1)
    assert_same(after_losses["elastic"]["state"], undisturbed)
