"""Stage `train`: Ray Train workers train the collaborators on the task sequence."""

from __future__ import annotations

from typing import Any, Self

from kcm.config import Config
from pipelines.batch.local import one_thread
from pipelines.context import Attempt
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TrainedArtefact
from pipelines.training.driver import train
from pipelines.training.worker import TrainerConfig, TrainerPlan


class Train(Stage, Plan, TrainerConfig):
    """The state of a finished trainer for each collaborator."""

    stage, version, reads, writes, unit = "train", 4, ("features", "outcomes"), TrainedArtefact, "steps"

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration, which may leave open what is deployed."""
        return super().of(run, collaborators=run.trained, **more)  # type: ignore[attr-defined]

    def needs_cluster(self, features: FeaturesArtefact, **reads: Any) -> bool:
        """Not for a few rows of learners that take no steps, which are done before workers have started."""
        return not self.is_solved or not features.has_few_rows

    def write(self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact) -> None:
        """`<name>.pt` for each collaborator."""
        plan = TrainerPlan(self, features, outcomes)
        if not self.needs_cluster(features):
            solved: dict[str, dict[str, Any]] = {}
            for number, name in enumerate(self.collaborators):
                attempt.bar.update(number, len(self.collaborators))
                with one_thread():
                    trainer = plan.trainer(name)
                    trainer.run()
                solved[name] = trainer.state_dict()
            TrainedArtefact.write(attempt.folder, solved, self.collaborators)
            return
        train(attempt, plan)
