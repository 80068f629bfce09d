"""Stage `train`: the collaborators learn the task sequence."""

from __future__ import annotations

from typing import Any, Self

from kcm.config import Config
from pipelines.context import Attempt
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TrainedArtefact
from pipelines.training.train import train
from pipelines.training.worker import TrainerConfig, TrainerPlan


class Train(Stage, Plan, TrainerConfig):
    """The state of a finished trainer for each collaborator."""

    stage, version, reads, writes, unit = "train", 5, ("features", "outcomes"), TrainedArtefact, "steps"

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration, which may leave open what is deployed."""
        return super().of(run, collaborators=run.trained, **more)  # type: ignore[attr-defined]

    def needs_workers(self, **reads: Any) -> bool:
        """For learners that take steps."""
        return not self.is_solved

    def write(self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> None:
        """`<name>.pt` for each collaborator."""
        train(attempt, TrainerPlan(self, features, outcomes))
