"""Stage `train`: the collaborators learn the task sequence, in this process or in Ray Train's workers."""

from __future__ import annotations

from typing import Any, Self

from kcm import extras
from kcm.config import Config
from pipelines.batch.mapping import one_thread
from pipelines.cluster.config import device_here
from pipelines.context import Attempt
from pipelines.progress import Bar
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TrainedArtefact
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan


class Train(Stage, Plan, TrainerConfig):
    """The state of a finished trainer for each collaborator."""

    stage, version, reads, writes, unit = "train", 5, ("features", "outcomes"), TrainedArtefact, "steps"

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration, for all collaborators that the run trains."""
        return super().of(run, collaborators=run.trained, **more)  # type: ignore[attr-defined]

    def needs_workers(self, **reads: Any) -> bool:
        """For learners that take steps."""
        return not self.is_solved

    def write(self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> None:
        """`<name>.pt` for each collaborator."""
        train(attempt, TrainerPlan(self, features, outcomes))


def train(attempt: Attempt, plan: TrainerPlan, **resumed: Any) -> None:
    """Train, and write the states of the trainers as an artefact; `resumed` as in `WorkerPlan`.

    This process solves closed forms of few rows, in less time than workers need to start.
    """
    context, config, features = attempt.context, plan.config, plan.features
    worker = WorkerPlan(plan, attempt.fingerprint, attempt.storage, **resumed)
    if config.is_solved and features.has_at_most(context.cluster.in_process_rows):
        states = _solved(worker, attempt.bar, device_here(context.cluster.gpus_per_worker))
    else:
        states = extras.load("pipelines.training.driver:trained_by_workers", "training by steps")(worker, attempt)
    TrainedArtefact.write(attempt.folder, states, config.collaborators)


def _solved(worker: WorkerPlan, bar: Bar, device: str) -> dict[str, dict[str, Any]]:
    """The states of trainers that this process has run."""
    names, states = worker.plan.config.collaborators, dict[str, dict[str, Any]]()
    for number, name in enumerate(names):
        bar.update(number, len(names))
        with one_thread():
            trainer = worker.trainer(name, device=device)
            trainer.run()
        states[name] = trainer.state_dict()
    return states
