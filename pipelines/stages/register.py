"""Stage `register`: the first collaborator's cascade as a bundle, with the report, in the model registry."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kcm.bundle.bundle import Bundle, Lineage
from kcm.encoders import EncoderConfig
from kcm.large import LargeConfig
from pipelines.context import Attempt, Context
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.tracking import TrackingConfig
from pipelines.training.artefacts import TunedArtefact

BUNDLE = "bundle"


class BundleArtefact(Artefact):
    """A bundle."""

    kind = "bundle"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / BUNDLE


class Register(Stage, Plan):
    """The bundle, in the store and as the champion of the registry; idempotent."""

    stage, version, unit = "register", 3, "bundles"
    reads, writes = ("features", "outcomes", "tuned", "evaluated"), BundleArtefact

    name: str
    encoder: EncoderConfig = Field(exclude=True)  # by the fingerprints of what is read
    large: LargeConfig = Field(exclude=True)
    tracking: TrackingConfig = Field(exclude=True)

    def write(
        self,
        attempt: Attempt,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
        evaluated: EvaluatedArtefact,
    ) -> None:
        """The bundle of the first collaborator."""
        plan, sequence = tuned.plan, features.sequence
        name = plan.config.collaborators[0]
        found, policy = tuned.load(name), evaluated.policy(name)
        bundle = Bundle(
            collaborator=found.collaborator,
            seed=plan.config.seed,
            label_names=sequence.names.labels,
            none_label=sequence.names.none_label,
            task_names=sequence.names.tasks,
            encoder=sequence.with_head(self.encoder).in_runtime(features.runtime),
            encoder_identity=features.identity,
            large=sequence.large_with_head(self.large).in_runtime(outcomes.runtime),
            large_identity=outcomes.identity,
            policy=policy,
            learner=plan.config.learner,
            large_head=outcomes.head,
            deferral=found.gate.deferral,
            prompts=found.prompts if policy.prompt != "none" else None,
            certificates=evaluated.certificates(name),
            metrics=evaluated.result[name] | {"frontier": evaluated.curves[name]["frontier"]},
            learner_state=found.state["learner"],
            lineage=Lineage(
                artefacts={each.stage: each.fingerprint for each in (features, outcomes, tuned, evaluated)}
            ),
        )
        bundle.write(attempt.folder / BUNDLE)

    def publish(self, artefact: BundleArtefact, context: Context) -> None:
        """Make the bundle the champion."""
        if context.tracking:
            model = self.tracking.model_of(self.name)
            context.tracking.publish(model, artefact.bundle, artefact.fingerprint)
