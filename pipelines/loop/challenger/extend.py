"""Stages `extend` and `choose` of an update: the networks learn one more task, then gate and policy are chosen.

The hyper-parameters are the choice of the champion's search; only the policy is searched again.
"""

from __future__ import annotations

from dataclasses import asdict
from functools import partial
from typing import Any, Self

from pydantic import Field

from kcm.cascade.policy import Goal
from kcm.certification.certificate import CertificateConfig
from kcm.errors import ConfigError
from kcm.kan import MLP
from pipelines.context import Attempt
from pipelines.loop.parent import Parent
from pipelines.loop.window.stage import WindowArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.stages.train import train
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TRIALS, TrainedArtefact, TunedArtefact
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerConfig, TrainerPlan


class Extend(Stage, Plan, TrainerConfig):
    """The champion's collaborator, trained on one more task as it was trained before."""

    stage, version, reads, writes, unit = "extend", 3, ("window", "features", "outcomes"), TrainedArtefact, "steps"

    tuned: Any = Field(exclude=True)  # the champion's TunedArtefact

    @classmethod
    def of_parent(cls, parent: Parent) -> Self:
        """The hyper-parameters that the champion's search chose. ConfigError for a champion that cannot be extended."""
        tuned, name = parent.tuned, parent.collaborator
        config = tuned.plan.config
        if not config.train.mask_unseen:
            raise ConfigError(
                "train.mask_unseen is false: the champion was trained with labels of later tasks",
                where="train.mask_unseen",
                hint="Set train.mask_unseen: true and run `kcm run` again",
            )
        choice, network = choice_of(parent), config.network
        if tuned.plan.kind(name) == "mlp":  # the width that matches the KAN's depends on the number of labels
            judge = tuned.load(name).collaborator.judge
            assert isinstance(judge, MLP)
            network = network.model_copy(update={"mlp_width": judge.widths[1]})
        weights = {"large_weight": choice.large_weight, "judge_weight": choice.judge_weight}
        return cls(
            collaborators=(name,),
            network=network,
            learner=config.learner,
            train=config.train.with_rate(choice.learning_rate),
            distill=config.distill.model_copy(update=weights),
            seed=config.seed,
            tuned=tuned,
        )

    def dependencies(self, window: WindowArtefact, **reads: Artefact) -> tuple[Artefact, ...]:
        """The grown features and outcomes, without forgotten rows, and the champion's networks."""
        return *reads.values(), self.tuned

    def needs_workers(self, **reads: Any) -> bool:
        """For learners that take steps."""
        return not self.is_solved

    def write(
        self, attempt: Attempt, window: WindowArtefact, features: FeaturesArtefact, outcomes: OutcomesArtefact
    ) -> None:
        """Train one more task; writes the trainer's state."""
        train(
            attempt,
            TrainerPlan(self, features, outcomes),
            parents={name: partial(self.tuned.state_file, name) for name in self.collaborators},
            forgotten_rows=frozenset(window.facts.forgotten_rows),
        )


class Choose(Stage, Plan):
    """Gate and policy of the extended collaborator, stored like a search of one trial: the champion's choice."""

    stage, version, unit = "choose", 2, "trials"
    reads, writes = ("features", "outcomes", "trained"), TunedArtefact

    choice: Choice
    max_loss: float
    goal: Goal
    novel_share: float
    certificate: CertificateConfig

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, trained: TrainedArtefact
    ) -> None:
        """Fit the gate and find the policy on the validate rows of all tasks."""
        (name,) = trained.config.collaborators
        trial = TrialPlan(
            plan=TrainerPlan(trained.config, features, outcomes),
            trained=trained,
            scratch=attempt.storage,
            max_loss=self.max_loss,
            certificate=self.certificate,
            novel_share=self.novel_share,
            goal=self.goal,
        )
        best = trial.evaluate(name, self.choice)
        best.save(attempt.folder / name)
        trial_record = {"number": 0, "collaborator": name, "params": asdict(self.choice)}
        write_json(attempt.folder / TRIALS, [trial_record | best.reached])


def choice_of(parent: Parent) -> Choice:
    """The choice of the champion's search."""
    return Choice(**parent.tuned.choice(parent.collaborator))
