"""Stage `train`: the collaborators learn the task sequence, in this process or in Ray Train's workers.

A run that continues a sequence learns its new tasks alone; the result is that of one run over all tasks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Self

from kcm import extras
from kcm.config import Config
from kcm.errors import ConfigError
from pipelines.batch.mapping import one_thread
from pipelines.cluster.config import device_here
from pipelines.context import Attempt
from pipelines.progress import Bar
from pipelines.stages.parent import Parent
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TrainedArtefact, TunedArtefact
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan


class Train(Stage, Plan, TrainerConfig):
    """The state of a finished trainer for each collaborator; a parent's trainers learn the tasks that it lacks."""

    stage, version, reads, writes, unit = "train", 6, ("features", "outcomes"), TrainedArtefact, "steps"

    @classmethod
    def of(cls, run: Config, *, parent: Parent | None = None, only: str | None = None, **more: Any) -> Self:
        """The stage with its part of a run's configuration, for all collaborators that the run trains.

        With a parent, its collaborators (or `only` one) with the settings that its search chose. ConfigError if it
        cannot be continued.
        """
        if parent is None:
            return super().of(run, chosen={}, **more)
        tuned, config = parent.tuned, parent.tuned.plan.config
        if not config.train.mask_unseen:
            raise ConfigError(
                "train.mask_unseen is false: the networks were trained with labels of later tasks",
                where="train.mask_unseen",
                hint="Set train.mask_unseen: true and run `kcm run` again, without --append",
            )
        names = (only,) if only else config.collaborators
        chosen = {name: trained_with(tuned, name) for name in names}
        settings = config.model_dump() | {"collaborators": names, "chosen": chosen}
        for name in (name for name in names if tuned.plan.kind(name) == "mlp"):
            # The width that matches the KAN's depends on the number of labels.
            judge: Any = tuned.load(name).collaborator.judge
            settings["network"]["mlp_width"] = judge.widths[1]
        return cls(**settings, parent=parent)

    def dependencies(self, **reads: Artefact) -> tuple[Artefact, ...]:
        """Features and outcomes, and the networks that learn on."""
        return (*reads.values(), self.parent.tuned) if self.parent else tuple(reads.values())

    def needs_workers(self, **reads: Any) -> bool:
        """For learners that take steps."""
        return not self.is_solved

    def write(self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> None:
        """`<name>.pt` for each collaborator.

        This process solves closed forms of few rows, in less time than workers need to start.
        """
        worker = WorkerPlan(TrainerPlan(self, features, outcomes), attempt.fingerprint, attempt.storage)
        if self.parent:
            parents: dict[str, Any] = {name: partial(self.parent.tuned.state_file, name) for name in self.collaborators}
            worker = replace(worker, parents=parents, forgotten_rows=self.parent.forgotten_rows)
        cluster = attempt.context.cluster
        if self.is_solved and features.has_at_most(cluster.in_process_rows):
            states = _solved(worker, attempt.bar, device_here(cluster.gpus_per_worker))
        else:
            states = extras.load("pipelines.training.driver:trained_by_workers", "training by steps")(worker, attempt)
        TrainedArtefact.write(attempt.folder, states, self.collaborators)


def trained_with(tuned: TunedArtefact, name: str) -> dict[str, float]:
    """The settings of training that a search chose for a collaborator."""
    return {key: value for key, value in tuned.choice(name).items() if key not in ("gate", "scope")}


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
