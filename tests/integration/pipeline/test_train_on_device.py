"""Promise: Ray Train's workers compute on the device that `get_device()` names, and nothing of a training on the CPU.

What stays on the CPU, by frame of the call stack: a network is drawn there (`DRAWN`), so that it starts alike on every
device. What is copied there (`COPIED`): sums of gloo, checkpoints, the accuracies that are reported, and the labels of
remembered rows, whose hashed ids decide which rows stay.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import LearnerConfig
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Reporter
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.storage import Storage
from pipelines.training import driver
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan
from tests.pipelines.made_parts import MadeFeatures, write_task

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

TRAIN_WORKER = driver.train_worker
PRODUCTS = {f"aten::{name}" for name in ("mm", "addmm", "addmm_", "bmm", "baddbmm", "mv", "addmv", "dot", "linear")}
SOLVES = ("aten::linalg_", "aten::_linalg_", "aten::cholesky", "aten::triangular_solve")
DRAWN = {("collaborator.py", "__init__"), ("outputs.py", "start_outputs"), ("basis.py", "normal_means")}
COPIED = {
    ("ranks.py", "sum_"),
    ("ranks.py", "gather"),
    ("sequence.py", "state_dict"),
    ("trainer.py", "state_dict"),
    ("sequence.py", "evaluate"),
    ("replay.py", "add"),
}


def inside(places: Iterable[tuple[str, str]]) -> bool:
    """Whether one of these functions, by file and name, is being called."""
    frame = sys._getframe(1)
    while frame := frame.f_back:  # type: ignore[assignment]
        if (Path(frame.f_code.co_filename).name, frame.f_code.co_name) in places:
            return True
    return False


class OnDevice(TorchDispatchMode):
    """Fails at a matrix product or solve of CPU tensors, and at a copy from the device to the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from tests.pretend_device import MOVES, Pretend

        name, kwargs = func._schema.name, kwargs or {}
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_cpu = any(not isinstance(tensor, Pretend) for tensor in tensors)
        if (name in PRODUCTS or name.startswith(SOLVES)) and on_cpu and not inside(DRAWN):
            raise AssertionError(f"{name} of CPU tensors")
        outcome = func(*args, **kwargs)
        leaves = name in MOVES and any(isinstance(tensor, Pretend) for tensor in tensors)
        if leaves and not isinstance(outcome, Pretend) and not inside(COPIED):
            raise AssertionError(f"{name} to the CPU")
        return outcome


def forbid(module: ModuleType) -> None:
    """Let every function of a module fail, unless a network is drawn."""
    for name, function in vars(module).items():
        if name.startswith("_") or not callable(function) or isinstance(function, type):
            continue

        def refuse(*args: Any, _function: Callable[..., Any] = function, **kwargs: Any) -> Any:
            if inside(DRAWN):
                return _function(*args, **kwargs)
            raise AssertionError(f"{module.__name__}.{_function} in a training on a device")

        setattr(module, name, refuse)


def train_on_device(config: dict[str, Any]) -> None:
    """Run in a worker in place of `train_worker`: the same, with another device, watched."""
    from tests.pretend_device import DEVICE

    for module in (np.linalg, scipy.linalg, scipy.linalg.lapack, scipy.linalg.blas):
        forbid(module)
    driver.get_device = lambda: DEVICE
    with OnDevice():
        TRAIN_WORKER(config)


CHOICES: dict[str, tuple[LearnerConfig, NetworkConfig]] = {
    "steps": (ReplayConfig(memory=40, batch_size=16), NetworkConfig(hidden=(8,))),
    "closed form": (
        AnalyticConfig(chunk_size=128),
        NetworkConfig(hidden=(), basis="pspline", mixing=16, grid_size=4, spline_order=2),
    ),
    "fewer rows than inputs": (
        AnalyticConfig(),
        NetworkConfig(hidden=(), basis="pspline", mixing=160, grid_size=4, spline_order=2),
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_two_workers_compute_on_their_device(choice: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: with only the device replaced, no product, solve or needless copy is on the CPU."""
    learner, network = CHOICES[choice]
    for number in range(2):
        write_task(tmp_path, number)
    config = TrainerConfig(
        collaborators=("kcm", "mcm"),
        network=network,
        learner=learner,
        train=TrainConfig(num_epochs=2, batch_size=50, mask_unseen=True),
        distill=DistillConfig(),
        seed=0,
    )
    features = replace(MadeFeatures("features", "made", tmp_path / "features"), num_tasks=2)
    plan = TrainerPlan(config, features, OutcomesArtefact("outcomes", "made", tmp_path / "outcomes"))
    monkeypatch.setattr(driver, "train_worker", train_on_device)
    monkeypatch.setattr(driver, "MAX_FAILURES", 0)
    worker = WorkerPlan(plan, "this", Storage.at(tmp_path / "storage"), checkpoint_every=3)
    with Reporter().bar("train", "steps") as bar:
        states = driver.run_workers(worker, ClusterConfig(), bar, print)
    for name in config.collaborators:
        trainer = plan.trainer(name)
        trainer.run()
        assert states[name]["accuracy"] == trainer.accuracy
        for key, tensor in trainer.state_dict()["collaborator"].items():
            torch.testing.assert_close(states[name]["collaborator"][key], tensor, atol=1e-5, rtol=1e-4)
