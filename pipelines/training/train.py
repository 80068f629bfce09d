"""Training: by this process, or by Ray Train's workers."""

from __future__ import annotations

from typing import Any

from kcm import extras
from pipelines.batch.mapping import one_thread
from pipelines.context import Attempt
from pipelines.progress import Bar
from pipelines.training.artefacts import TrainedArtefact
from pipelines.training.worker import TrainerPlan, WorkerPlan


def train(attempt: Attempt, plan: TrainerPlan, **resumed: Any) -> None:
    """Train, and write the states of the trainers as an artefact; `resumed` as in `WorkerPlan`.

    Closed forms of few rows are solved by this process before workers would have started.
    """
    context, config, features = attempt.context, plan.config, plan.features
    worker = WorkerPlan(plan, attempt.fingerprint, attempt.storage, context.cluster.checkpoint_every, **resumed)
    if config.is_solved and features.has_at_most(context.cluster.in_process_rows):
        states = _solved(worker, attempt.bar)
    else:
        states = extras.load("pipelines.training.driver:trained_by_workers", "training by steps")(worker, attempt)
    TrainedArtefact.write(attempt.folder, states, config.collaborators)


def _solved(worker: WorkerPlan, bar: Bar) -> dict[str, dict[str, Any]]:
    """The states of trainers that this process has run."""
    names, states = worker.plan.config.collaborators, dict[str, dict[str, Any]]()
    for number, name in enumerate(names):
        bar.update(number, len(names))
        with one_thread():
            trainer = worker.trainer(name)
            trainer.run()
        states[name] = trainer.state_dict()
    return states
