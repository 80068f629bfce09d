"""Stage `train`: Ray Train workers train the collaborators on the task sequence."""

from __future__ import annotations

from typing import Any, Self

from rich.markup import escape

from kcm.config import Config
from pipelines.batch.mapping import one_thread
from pipelines.context import Attempt
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TrainedArtefact
from pipelines.training.driver import run_workers
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan


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
        context = attempt.context
        plan = TrainerPlan.of(self, features, outcomes)
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
        worker = WorkerPlan(plan, attempt.fingerprint, attempt.storage, context.cluster.checkpoint_every)
        record = context.tracking.log_metrics if context.tracking else None
        states = run_workers(
            worker, context.cluster, attempt.bar, lambda line: context.reporter.say(escape(line)), record
        )
        TrainedArtefact.write(attempt.folder, states, self.collaborators)
