"""The Ray Train worker: trains all collaborators on the task sequence, with checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import ray.train
import torch
from filelock import FileLock

from kcm.collaborator.collaborator import Collaborator, CollaboratorName, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.learners import LearnerConfig
from kcm.learners.ranks import Ranks
from kcm.learners.stream import ParquetRows
from kcm.learners.trainer import TrainConfig, Trainer
from pipelines.store.checkpoint import checkpoint_name, checkpoints, is_sound, newest_checkpoint, write_checkpoint
from pipelines.store.features import FeaturesArtefact, task_file
from pipelines.store.outcomes import OutcomesArtefact

PROGRESS, NOTES, METRICS = "progress.json", "notes.txt", "metrics.jsonl"  # what rank 0 leaves for the driver
_writer_locks: list[FileLock] = []  # held until this process ends


@dataclass(frozen=True)
class TaskFiles:
    """One task on disk: its features, and the large model's answers to the same rows."""

    name: str
    features: Path
    outcomes: Path


class TrainerConfig(Config):
    """All that decides how collaborators are trained on given rows."""

    collaborators: tuple[CollaboratorName, ...]
    network: NetworkConfig
    learner: LearnerConfig
    train: TrainConfig
    distill: DistillConfig
    seed: int


@dataclass(frozen=True)
class TrainerPlan:
    """How collaborators are trained, and on what."""

    config: TrainerConfig
    tasks: tuple[TaskFiles, ...]
    in_features: int
    num_labels: int

    @classmethod
    def of(cls, config: TrainerConfig, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> TrainerPlan:
        """The plan for the files of finished stages."""
        files = [
            TaskFiles(name, task_file(features.folder, number), task_file(outcomes.folder, number))
            for number, name in enumerate(features.names.tasks)
        ]
        return cls(config, tuple(files), features.dim, len(features.names.labels))

    def collaborator(self, name: str, state: Mapping[str, Any] | None = None) -> Collaborator:
        """The collaborator of this name: untrained, or as the state of its trainer has it."""
        config = self.config
        collaborator = Collaborator(self.in_features, self.num_labels, config.network, self.kind(name), config.seed)
        if state is None:
            return collaborator
        collaborator.load_state_dict(state["collaborator"])
        return collaborator.eval()

    def kind(self, name: str) -> NetworkKind:
        """The networks that the collaborator of this name has."""
        if name == "kcm":
            return "kan"
        return "random_relu" if self.config.learner.closed_form else "mlp"

    def trainer(self, collaborator: str, ranks: Ranks | None = None) -> Trainer:
        """A new trainer."""
        config, model = self.config, self.collaborator(collaborator)
        rows = [ParquetRows(task.name, task.features, task.outcomes) for task in self.tasks]
        learner = config.learner.build(config.seed)
        return Trainer(model, learner, rows, config.train, config.distill, seed=config.seed, ranks=ranks)


@dataclass(frozen=True)
class WorkerPlan:
    """A plan, and where its checkpoints go: `storage` is the folder that Ray Train copies them into.

    `parents` are the files of finished trainers, by collaborator, whose sequences go on; the others begin. What is
    remembered of `forgotten_rows` is dropped first.
    """

    plan: TrainerPlan
    fingerprint: str
    storage: Path
    checkpoint_every: int
    parents: Mapping[str, Path] = field(default_factory=dict)
    forgotten_rows: frozenset[str] = frozenset()


def train_worker(config: dict[str, Any]) -> None:
    """Entry point of a worker; `config["worker"]` is a WorkerPlan."""
    worker: WorkerPlan = config["worker"]
    ranks = Ranks.current()
    if ranks.rank == 0:
        _take_writer_lock(worker.storage)
    ranks.gather(None)  # nobody reads before the last writer is gone
    trainers = {name: worker.plan.trainer(name, ranks) for name in worker.plan.config.collaborators}
    note = partial(write_note, worker.storage / NOTES) if ranks.rank == 0 else lambda line: None
    state = newest_checkpoint(worker.storage, fingerprint=worker.fingerprint, say=note)
    steps = ranks.gather(state["steps"] if state else 0)
    if len(set(steps)) != 1:
        raise RuntimeError(f"the ranks see different checkpoints: {steps}; is the storage shared by all nodes?")
    for name, trainer in trainers.items():
        if state:
            trainer.load_state_dict(state[name])
        elif name in worker.parents:
            trainer.load_state_dict(load_state(worker.parents[name]))
            trainer.learner.forget(worker.forgotten_rows)
    if ranks.rank == 0:
        _prune(worker.storage, ray.train.get_context().get_experiment_name())
    _train(trainers, worker, ranks)


def _train(trainers: dict[str, Trainer], worker: WorkerPlan, ranks: Ranks) -> None:
    attempt = ranks.gather(uuid.uuid4().hex[:8])[0]  # a folder name that no earlier attempt has used
    total = sum(trainer.steps_in_all for trainer in trainers.values())
    path = worker.storage / PROGRESS
    show_progress = progress_writer(path, total, ranks.world_size) if ranks.rank == 0 else lambda steps: None
    since_checkpoint = 0
    while pending := [trainer for trainer in trainers.values() if not trainer.done]:
        trainer = min(
            pending, key=lambda each: each.position.task
        )  # all collaborators learn a task before the next one
        finished = trainer.step()
        since_checkpoint += 1
        show_progress(_steps(trainers.values()))
        if finished or since_checkpoint >= worker.checkpoint_every:
            _report(trainers, worker, ranks, attempt)
            since_checkpoint = 0


def _report(trainers: dict[str, Trainer], worker: WorkerPlan, ranks: Ranks, attempt: str) -> None:
    steps = _steps(trainers.values())
    metrics = {"steps": steps} | _metrics(trainers)
    name = checkpoint_name(attempt, steps)
    if ranks.rank != 0:
        ray.train.report(metrics, checkpoint_dir_name=name)
        return
    reported = {"step": steps, "timestamp": time.time_ns() // 1_000_000, "metrics": _metrics(trainers)}
    write_note(worker.storage / METRICS, json.dumps(reported))
    with tempfile.TemporaryDirectory() as folder:
        state: dict[str, Any] = {key: trainer.state_dict() for key, trainer in trainers.items()}
        write_checkpoint(Path(folder), state | {"steps": steps}, fingerprint=worker.fingerprint, steps=steps)
        ray.train.report(metrics, checkpoint=ray.train.Checkpoint(folder), checkpoint_dir_name=name)


def _metrics(trainers: dict[str, Trainer]) -> dict[str, float]:
    """The latest row of each accuracy matrix, under MLflow-friendly names, which are not those of what is deployed."""
    return {
        f"train/{name}/accuracy/{task.name}": accuracy
        for name, trainer in trainers.items()
        if trainer.accuracy["small"]
        for task, accuracy in zip(trainer.tasks, trainer.accuracy["small"][-1], strict=True)
        if accuracy is not None
    }


def _steps(trainers: Iterable[Trainer]) -> int:
    return sum(trainer.position.total for trainer in trainers)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a trainer."""
    state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu")
    return state


def write_note(path: Path, line: str) -> None:
    """Append a line for the driver to report; a worker's own output goes to a log."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")


def progress_writer(path: Path, total: int, workers: int, every_s: float = 0.25) -> Callable[[int], None]:
    """A function that writes the steps taken, the number of workers and this process's id for the driver."""
    last = 0.0

    def write(steps: int) -> None:
        nonlocal last
        if time.monotonic() - last < every_s and steps < total:
            return
        last = time.monotonic()
        draft = path.with_suffix(".draft")
        progress = {"steps": steps, "total": total, "workers": workers, "pid": os.getpid()}
        draft.write_text(json.dumps(progress), encoding="utf-8")
        draft.replace(path)

    return write


def _take_writer_lock(storage: Path, timeout_s: float = 60.0) -> None:
    """Wait for the writer lock, which the workers of a killed driver hold until they end."""
    storage.mkdir(parents=True, exist_ok=True)
    lock = FileLock(storage / "writer.lock")
    lock.acquire(timeout=timeout_s)
    _writer_locks.append(lock)


def _prune(storage: Path, attempt: str, keep: int = 2) -> None:
    """Keep the newest `keep` valid checkpoints of earlier attempts; Ray manages those of the current one."""
    earlier = [folder for folder in checkpoints(storage) if storage / attempt not in folder.parents]
    newest = [folder for folder in earlier if is_sound(folder)][:keep]
    for folder in earlier:
        if folder not in newest:
            shutil.rmtree(folder, ignore_errors=True)
