"""Stages `extend` and `choose` of an update: the networks learn one more task, then gate and policy are chosen.

Hyper-parameters are those that the champion's search has chosen; nothing is searched but the policy.
"""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from pydantic import Field
from rich.markup import escape

from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig
from kcm.errors import ConfigError
from kcm.kan import MLP
from pipelines.context import Attempt, Context
from pipelines.loop.stages.window import WindowArtefact
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import SEARCH, TRIALS, TrainedArtefact, TunedArtefact
from pipelines.training.driver import run_workers
from pipelines.training.trial import Choice, TrialPlan
from pipelines.training.worker import TrainerConfig, TrainerPlan, WorkerPlan


class Extension(Plan, TrainerConfig):
    """How the champion was trained, which is how it goes on."""

    parent: Any = Field(exclude=True)  # a TunedArtefact
    forgotten_rows: frozenset[str] = Field(exclude=True)  # by the features, which lack them

    def dependencies(self, window: WindowArtefact, **reads: Artefact) -> tuple[Artefact, ...]:
        """The grown features and outcomes, and the champion's networks."""
        return *reads.values(), self.parent

    def write(
        self, attempt: Attempt, window: WindowArtefact, features: FeaturesArtefact, outcomes: OutcomesArtefact
    ) -> None:
        """The state of a trainer that has learned one more task."""
        context = attempt.context
        plan = TrainerPlan.of(self, features, outcomes)
        worker = WorkerPlan(
            replace(plan, artefacts=(*plan.artefacts, self.parent)),
            attempt.fingerprint,
            attempt.storage,
            context.cluster.checkpoint_every,
            parents={name: self.parent.state_file(name) for name in self.collaborators},
            forgotten_rows=self.forgotten_rows,
        )
        record = context.tracking.log_metrics if context.tracking else None
        states = run_workers(
            worker, context.cluster, attempt.bar, lambda line: context.reporter.say(escape(line)), record
        )
        TrainedArtefact.write(attempt.folder, states, self.collaborators)


class Extend(Stage):
    """The champion's collaborator, trained on one more task."""

    stage, version, reads, writes, unit = "extend", 1, ("window", "features", "outcomes"), TrainedArtefact, "steps"

    parent: Any  # a BundleArtefact

    def version_of(self, plan: Extension, features: FeaturesArtefact, **reads: Artefact) -> int:
        """The next one for tasks that are larger than a window, whose rows came in another order before."""
        return self.version + plan.has_lanes(features.num_train_rows)

    def plan(self, context: Context, window: WindowArtefact, **reads: Artefact) -> Extension:
        """The hyper-parameters that the champion's search has chosen. ConfigError for one that cannot go on."""
        tuned = tuned_of(self.parent)
        config = tuned.plan.config
        if not config.train.mask_unseen:
            raise ConfigError(
                "train.mask_unseen = false: labels to come took part when the champion was trained",
                where="train.mask_unseen",
                hint="Set train.mask_unseen: true and `kcm run` anew",
            )
        name = deployed_of(self.parent)
        if config.learner.build(config.seed).restarts:
            context.reporter.say("this learner trains on the rows of all tasks anew: an update costs as much as a run")
        choice, network = _choice_of(tuned, name), config.network
        if tuned.plan.kind(name) == "mlp":  # the width that matches the KAN's goes with the number of labels
            judge = tuned.load(name).collaborator.judge
            assert isinstance(judge, MLP)
            network = network.model_copy(update={"mlp_width": judge.widths[1]})
        weights = {"large_weight": choice.large_weight, "judge_weight": choice.judge_weight}
        return Extension(
            collaborators=(name,),
            network=network,
            learner=config.learner,
            train=config.train.with_rate(choice.learning_rate),
            distill=config.distill.model_copy(update=weights),
            seed=config.seed,
            parent=tuned,
            forgotten_rows=window.forgotten_rows,
        )


class Chosen(Plan):
    """The gate and scope that the champion has, and what the policy may lose."""

    choice: Choice
    max_loss: float
    certificate: CertificateConfig

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, trained: TrainedArtefact
    ) -> None:
        """Fit the gate and find the policy on the validate rows of all tasks."""
        plan = TrainerPlan.of(trained.config, features, outcomes)
        (name,) = plan.config.collaborators
        trial = TrialPlan(
            plan=plan,
            features=features,
            outcomes=outcomes,
            trained=trained,
            scratch=attempt.storage,
            max_loss=self.max_loss,
            certificate=self.certificate,
        )
        objectives = trial.write_best(attempt.folder / name, name, self.choice)
        found = {"number": 0, "collaborator": name, "params": asdict(self.choice), "pareto": True}
        write_json(attempt.folder / TRIALS, [found | objectives])
        write_json(attempt.folder / SEARCH, {"space": None, "started_from": None})


class Choose(Stage):
    """Gate and policy of the extended collaborator, in the form of a search of one trial."""

    stage, version, unit = "choose", 1, "trials"
    reads, writes = ("features", "outcomes", "trained"), TunedArtefact

    tune: TuneConfig
    certificate: CertificateConfig
    parent: Any  # a BundleArtefact

    def plan(self, context: Context, **reads: Artefact) -> Chosen:
        """The choice of the champion's search."""
        tuned = tuned_of(self.parent)
        choice = _choice_of(tuned, deployed_of(self.parent))
        return Chosen(choice=choice, max_loss=self.tune.max_loss, certificate=self.certificate)


def tuned_of(parent: BundleArtefact) -> TunedArtefact:
    """The search that a bundle's cascade comes from."""
    return parent.source(TunedArtefact, "choose", "prompts", "tune")


def deployed_of(parent: BundleArtefact) -> str:
    """The collaborator whose cascade is in a bundle."""
    return parent.source(EvaluatedArtefact, "reevaluate", "evaluate").deployed


def _choice_of(tuned: TunedArtefact, name: str) -> Choice:
    return Choice(**tuned.choice(name))
