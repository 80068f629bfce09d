"""What a train worker does: trains all collaborators on the task sequence, with checkpoints."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from kcm.collaborator.collaborator import Collaborator, CollaboratorName, NetworkConfig, NetworkKind
from kcm.collaborator.distill import DistillConfig
from kcm.config import Config
from kcm.errors import LockedError
from kcm.learners import Learner, LearnerConfig
from kcm.learners.logistic import Logistic
from kcm.learners.ranks import Ranks
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.sequence import SequenceTrainer
from kcm.learners.training.stream import ParquetRows
from kcm.learners.training.trainer import trainer_of
from pipelines.store.artefact import storage_errors
from pipelines.store.checkpoint import CHECKPOINTS, checkpoints, newest_checkpoint, write_checkpoint
from pipelines.store.features import FeaturesArtefact
from pipelines.store.files import Files
from pipelines.store.lease import TTL_S, Lease, leased
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.records import Control
from pipelines.store.storage import Storage

PROGRESS = "progress.json"  # what rank 0 leaves for the driver
Trainers = dict[str, SequenceTrainer]  # by the names of their collaborators
Report = Callable[[dict[str, Any]], None]
KEEP = 2  # checkpoints of a training, should the newest one be damaged


class TrainerConfig(Config):
    """All that decides how collaborators are trained on given rows."""

    collaborators: tuple[CollaboratorName, ...]
    network: NetworkConfig
    learner: LearnerConfig
    train: TrainConfig
    distill: DistillConfig
    seed: int
    chosen: dict[str, dict[str, float]] = Field(
        {}, description="Values that a search chose for a collaborator, in place of those in `train` and `distill`."
    )

    def settings_of(self, name: str) -> tuple[TrainConfig, DistillConfig]:
        """The steps and the distillation of one collaborator."""
        values = dict(self.chosen.get(name, {}))
        train = self.train.with_rate(values.pop("learning_rate")) if values else self.train
        return train, self.distill.model_copy(update=values)

    @property
    def is_solved(self) -> bool:
        """Whether all collaborators are solved in closed form, without steps."""
        return self.learner.closed_form or set(self.collaborators) == {"linear"}


@dataclass(frozen=True)
class TrainerPlan:
    """How collaborators are trained, and on what."""

    config: TrainerConfig
    features: FeaturesArtefact
    outcomes: OutcomesArtefact

    @property
    def num_labels(self) -> int:
        """The labels of all tasks."""
        return len(self.features.names.labels)

    def collaborator(self, name: str, state: Mapping[str, Any] | None = None) -> Collaborator:
        """The collaborator of this name: untrained, or as the state of its trainer has it."""
        config = self.config
        network = config.network.without_additions if name == "linear" else config.network
        sizes = self.features.dim, self.num_labels, network, self.kind(name), config.seed
        collaborator = Collaborator(*sizes, num_words=self.features.num_words)
        if state is None:
            return collaborator
        collaborator.choose_basis(state["basis"])
        collaborator.load_state_dict(state["collaborator"])
        return collaborator.eval()

    def kind(self, name: str) -> NetworkKind:
        """The networks that the collaborator of this name has."""
        kinds: dict[str, NetworkKind] = {"kcm": "kan", "linear": "linear"}
        return kinds.get(name, "random_relu" if self.config.learner.closed_form else "mlp")

    def learner(self, name: str) -> Learner:
        """An untrained learner for the collaborator of this name."""
        return Logistic() if name == "linear" else self.config.learner.build(self.config.seed)

    def trainer(self, name: str, ranks: Ranks | None = None, device: torch.device | str = "cpu") -> SequenceTrainer:
        """A new trainer on a device, whose rows are on this node; logistic regression stays on the CPU."""
        config, learner = self.config, self.learner(name)
        model = self.collaborator(name).to("cpu" if learner.on_cpu else device)
        rows = [
            ParquetRows(task, self.features.fetched(number), self.outcomes.fetched(number))
            for number, task in enumerate(self.features.names.tasks)
        ]
        train, distill = config.settings_of(name)
        return trainer_of(model, learner, rows, train, distill, seed=config.seed, ranks=ranks)


@dataclass(frozen=True)
class WorkerPlan:
    """A plan, and the storage that its checkpoints go to.

    `parents` return the files of finished trainers, by collaborator, whose sequences continue; other collaborators
    start a sequence. The memory of `forgotten_rows` is dropped first.
    """

    plan: TrainerPlan
    fingerprint: str
    storage: Storage
    parents: Mapping[str, Callable[[], Path]] = field(default_factory=dict)
    forgotten_rows: frozenset[str] = frozenset()
    checkpoint_every: int = 500  # steps, inside a task

    def trainer(self, name: str, ranks: Ranks | None = None, device: torch.device | str = "cpu") -> SequenceTrainer:
        """A trainer of the collaborator of this name that continues from its parent, or starts."""
        trainer = self.plan.trainer(name, ranks, device)
        if name in self.parents:
            trainer.load_state_dict(load_state(self.parents[name]()))
            trainer.learner.forget(self.forgotten_rows)
        return trainer


def train_here(worker: WorkerPlan, report: Report, device: torch.device | str = "cpu") -> None:
    """Train as one of the ranks on a device; `report` receives the metrics at every checkpoint, on all ranks."""
    ranks = Ranks.current()
    with storage_errors(worker.storage.root), ExitStack() as stack:
        lease = stack.enter_context(_writer_lease(worker)) if ranks.rank == 0 else None
        ranks.gather(None)  # no rank reads before the previous writer has ended
        _resume(worker, ranks, lease, report, device)


def _writer_lease(worker: WorkerPlan) -> AbstractContextManager[Lease]:
    """The lock for writing checkpoints; a worker of a killed driver holds it until that worker ends."""
    control = Control(worker.storage.files.below("control"))
    return leased(control, "writer", "the training", wait_s=2 * TTL_S)


def _resume(worker: WorkerPlan, ranks: Ranks, lease: Lease | None, report: Report, device: torch.device | str) -> None:
    """Train from the newest checkpoint, or from the parents, or from the beginning."""
    files = worker.storage.files
    state = newest_checkpoint(files, fingerprint=worker.fingerprint, say=print)
    steps = ranks.gather(state["steps"] if state else 0)
    if len(set(steps)) != 1:
        raise RuntimeError(f"the ranks see different checkpoints: {steps}; is the storage shared by all nodes?")
    names: tuple[str, ...] = worker.plan.config.collaborators
    if state is None:
        trainers = {name: worker.trainer(name, ranks, device) for name in names}
    else:
        trainers = {name: worker.plan.trainer(name, ranks, device) for name in names}
        for name, trainer in trainers.items():
            trainer.load_state_dict(state[name])
    _train(trainers, worker, ranks, lease, report)


def _train(trainers: Trainers, worker: WorkerPlan, ranks: Ranks, lease: Lease | None, report: Report) -> None:
    attempt = ranks.gather(uuid.uuid4().hex[:8])[0]  # part of names that no earlier attempt has used
    total = sum(trainer.steps_in_all for trainer in trainers.values())
    show_progress = progress_writer(worker.storage.files, total, ranks.world_size) if lease else lambda steps: None
    written = list(reversed(checkpoints(worker.storage.files)))  # the oldest first
    since_checkpoint = 0
    while pending := [trainer for trainer in trainers.values() if not trainer.done]:
        trainer = min(
            pending, key=lambda candidate: candidate.position.task
        )  # all collaborators learn a task before the next one
        finished = trainer.step()
        since_checkpoint += 1
        show_progress(_steps(trainers.values()))
        if finished or since_checkpoint >= worker.checkpoint_every:
            if lease:
                written.append(_keep(trainers, worker, attempt, lease))
                while len(written) > KEEP:  # the oldest first, which may be from earlier attempts
                    worker.storage.files.below(CHECKPOINTS).delete([written.pop(0)])
            report({"steps": _steps(trainers.values())})
            since_checkpoint = 0


def _keep(trainers: Trainers, worker: WorkerPlan, attempt: str, lease: Lease) -> str:
    """Write a checkpoint; its name."""
    if not lease.held:
        raise LockedError("another process took over this training", where=worker.storage.files.uri)
    steps, files = _steps(trainers.values()), worker.storage.files
    state: dict[str, Any] = {key: trainer.state_dict() for key, trainer in trainers.items()}
    return write_checkpoint(files, attempt, state | {"steps": steps}, fingerprint=worker.fingerprint, steps=steps)


def _steps(trainers: Iterable[SequenceTrainer]) -> int:
    return sum(trainer.position.total for trainer in trainers)


def load_state(path: Path) -> dict[str, Any]:
    """The state of a trainer."""
    return torch.load(path, weights_only=True, map_location="cpu")


def progress_writer(files: Files, total: int, workers: int, every_s: float = 0.25) -> Callable[[int], None]:
    """A function that writes the steps taken, the number of workers and this process's id for the driver."""
    pause_s = max(every_s, files.poll_s)
    last = 0.0

    def write(steps: int) -> None:
        nonlocal last
        if time.monotonic() - last < pause_s and steps < total:
            return
        last = time.monotonic()
        progress = {"steps": steps, "total": total, "workers": workers, "pid": os.getpid()}
        files.write(PROGRESS, json.dumps(progress).encode())

    return write
