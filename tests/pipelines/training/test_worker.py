"""A train worker that dies between two checkpoints resumes, by steps and in closed form."""

from pathlib import Path
from typing import Any

import pytest
import torch

from kcm.collaborator.collaborator import NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners import LearnerConfig
from kcm.learners.analytic import AnalyticConfig
from kcm.learners.replay import ReplayConfig
from kcm.learners.training.config import TrainConfig
from pipelines.store.checkpoint import newest_checkpoint
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.storage import Storage
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan, train_here
from tests.pipelines.made_parts import MadeFeatures, write_task


class Killed(Exception):
    """The end of a worker after a checkpoint."""


@pytest.mark.parametrize(
    ("learner", "hidden"),
    [(ReplayConfig(memory=40), (8,)), (AnalyticConfig(chunk_size=100), ())],
    ids=["steps", "sums"],
)
def test_a_worker_killed_after_checkpoints_changes_nothing(
    tmp_path: Path, learner: LearnerConfig, hidden: tuple[int, ...]
) -> None:
    """Promise: it ends, bit for bit, like trainers that ran alone; the closed form stops within a task too."""
    for number in range(3):
        write_task(tmp_path, number)
    config = TrainerConfig(
        collaborators=("kcm", "linear"),
        network=NetworkConfig(hidden=hidden),
        learner=learner,
        train=TrainConfig(num_epochs=1, batch_size=100),
        distill=DistillConfig(),
        seed=0,
    )
    features = MadeFeatures("features", "made", tmp_path / "features")
    plan = TrainerPlan(config, features, OutcomesArtefact("outcomes", "made", tmp_path / "outcomes"))
    worker = WorkerPlan(plan, "this", Storage.at(tmp_path / "storage"), checkpoint_every=2)
    stops: list[int] = []

    def report(metrics: dict[str, Any]) -> None:
        stops.append(metrics["steps"])
        if len(stops) in (1, 3):
            raise Killed

    for _ in range(2):
        with pytest.raises(Killed):
            train_here(worker, report)
    train_here(worker, report)
    assert stops[0] == 2  # of 3 steps of a task
    state = newest_checkpoint(worker.storage.files, fingerprint="this", say=print)
    assert state is not None
    for name in config.collaborators:
        alone = plan.trainer(name)
        alone.run()
        assert state[name]["accuracy"] == alone.accuracy
        for key, tensor in alone.collaborator.state_dict().items():
            assert torch.equal(state[name]["collaborator"][key], tensor)
