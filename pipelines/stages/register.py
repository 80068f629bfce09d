"""Stage `register`: the first collaborator's cascade as a bundle, with the report, in the model registry."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from rich.markup import escape

from kcm.bundle.bundle import Bundle, Lineage, bundle_digest
from kcm.cascade.policy import Policy
from kcm.certify.drift import FEWEST_ROWS, DriftReference
from kcm.certify.promotable import why_not_promotable
from kcm.encoders import EncoderConfig
from kcm.large import LargeConfig
from pipelines.batch.pool import elsewhere
from pipelines.context import Attempt, Context
from pipelines.loop.champion import Pointer
from pipelines.loop.logs import log_watermark
from pipelines.loop.promotion import Champions, champion_now
from pipelines.loop.units import trained_units
from pipelines.serve.config import ServeConfig
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact, outcome_table
from pipelines.tracking import TrackingConfig
from pipelines.training.artefacts import Tuned, TunedArtefact

BUNDLE = "bundle"
DRIFT_DELTA = 0.05  # probability that a limit on drift is too low; as much again is left to false alarms


class BundleArtefact(Artefact):
    """A bundle."""

    kind = "bundle"

    @property
    def bundle(self) -> Path:
        """The bundle's folder."""
        return self.folder / BUNDLE


class Register(Stage, Plan):
    """The bundle, in the store, and in the registry as the champion; idempotent."""

    stage, version, unit = "register", 4, "bundles"
    reads, writes = ("features", "outcomes", "tuned", "evaluated"), BundleArtefact

    name: str
    encoder: EncoderConfig = Field(exclude=True)  # by the fingerprints of what is read
    large: LargeConfig = Field(exclude=True)
    tracking: TrackingConfig = Field(exclude=True)
    serve: ServeConfig = Field(exclude=True)

    @property
    def continues(self) -> str | None:
        """Digest of the bundle whose training this one continues."""
        return None

    def write(
        self,
        attempt: Attempt,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
        evaluated: EvaluatedArtefact,
    ) -> None:
        """The bundle of the first collaborator."""
        elsewhere(_write_bundle, (self, attempt.folder / BUNDLE, features, outcomes, tuned, evaluated))

    def publish(self, artefact: BundleArtefact, context: Context) -> None:
        """Make the bundle the champion, unless it was before and another one followed, or it escalates everything.

        What `context.promote` says counts more than that.
        """
        if context.tracking is None:
            return
        model = self.tracking.model_of(self.name)
        from pipelines.pyfunc import register_model  # brings most of MLflow

        number = register_model(context.tracking, model, artefact.bundle, artefact.fingerprint)
        if (reason := held_back(artefact, context.promote)) is not None:
            say = f"version {number} is registered, and not made the champion: {reason}"
            context.reporter.say(escape(say))
            return
        champions = Champions(Pointer(context.store.control, self.name), context.tracking.uri, model)
        candidate = champion_now(
            f"{model}/{number}",
            bundle_digest(artefact.bundle),
            artefact.fingerprint,
            by="run",
            after=log_watermark(self.serve, context.store.root, self.serve.application or self.name),
        )
        if (stays := champions.introduce(candidate)) is not None:
            context.reporter.say(f"{escape(stays.version)} stays the champion; `kcm promote` brings {number} back")


def _write_bundle(
    stage: Register,
    folder: Path,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    tuned: TunedArtefact,
    evaluated: EvaluatedArtefact,
) -> None:
    """Write the bundle to a new folder."""
    plan, sequence = tuned.plan, features.sequence
    name = plan.config.collaborators[0]
    found, policy = tuned.load(name), evaluated.policy(name)
    bundle = Bundle(
        collaborator=found.collaborator,
        seed=plan.config.seed,
        label_names=sequence.names.labels,
        none_label=sequence.names.none_label,
        task_names=sequence.names.tasks,
        encoder=sequence.with_head(stage.encoder).in_runtime(features.runtime).of_dim(features.dim),
        encoder_identity=features.identity,
        large=sequence.large_with_head(stage.large).in_runtime(outcomes.runtime),
        large_identity=outcomes.identity,
        policy=policy,
        learner=plan.config.learner,
        large_head=outcomes.head,
        gate_head=found.gate.head,
        prompts=found.prompts if policy.prompt != "none" else None,
        certificates=evaluated.certificates(name),
        metrics=evaluated.result[name] | {"frontier": evaluated.curves[name]["frontier"]},
        learner_state=found.state["learner"],
        trained_units=trained_units(sequence),
        drift=_drift(found, policy, features, outcomes),
        lineage=Lineage(
            artefacts={each.stage: each.fingerprint for each in (features, outcomes, tuned, evaluated)},
            parent=stage.continues,
        ),
    )
    bundle.write(folder)


def held_back(artefact: BundleArtefact, promote: bool | None) -> str | None:
    """Why a version is registered alone; None where it may become the champion."""
    if promote is not None:
        return None if promote else "--no-promote"
    bundle = Bundle.read(artefact.bundle)
    reason = why_not_promotable(bundle.policy, bundle.certificates)
    return reason and f"{reason}; `kcm run --promote` insists"


def _drift(
    found: Tuned, policy: Policy, features: FeaturesArtefact, outcomes: OutcomesArtefact
) -> DriftReference | None:
    """What traffic will be compared with: the certify rows under the deployed policy; None where they are too few."""
    certify = outcome_table(found.collaborator, features, outcomes, ["certify"], found.gate)
    table, num_labels = certify.table, found.collaborator.num_labels
    if len(table) < FEWEST_ROWS:
        return None
    small_N = table.small_logits[:, :num_labels].argmax(axis=1)
    return DriftReference.fit(
        features.matrix("certify"),
        small_N,
        num_labels,
        policy.keep(certify.scores_N, table.task),
        small_N != table.large_label,
        DRIFT_DELTA,
    )
