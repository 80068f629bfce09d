"""Stage `register`: the deployed collaborator's cascade as a bundle, with the report, in the model registry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from kcm.bundle.bundle import Bundle, Lineage
from kcm.bundle.frozen_models import ComputedBy, bundle_digest
from kcm.cascade.novelty import Novelty
from kcm.cascade.policy import Policy
from kcm.certification.certificate import CertificateConfig, why_not_promotable
from kcm.certification.monitoring.novelty import FEWEST_ROWS, NoveltyReference
from kcm.encoders import EncoderConfig
from kcm.encoders.precomputed import with_dim
from kcm.encoders.runtime import in_runtime
from kcm.large import LargeConfig
from pipelines.batch.mapping import run_remotely
from pipelines.batch.outcome_table import scored_parts
from pipelines.context import Attempt, Context
from pipelines.registry import gates
from pipelines.registry.champion import BUNDLE, REGISTER, Champion, Pointer
from pipelines.registry.comparison import Version, without_traffic
from pipelines.registry.gates import GateConfig
from pipelines.registry.promote import WAITS, Champions
from pipelines.registry.pyfunc import register_model
from pipelines.registry.replicas import RefusedByServiceError
from pipelines.serve.config import ServeConfig, log_url
from pipelines.serve.log.window import log_watermark
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.parent import BundleArtefact
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.tracking.config import TrackingConfig
from pipelines.training.artefacts import Tuned, TunedArtefact
from pipelines.training.worker import TrainerPlan

MOST_CERTIFY_ROWS = 1000  # in a bundle, for explanations


class Register(Stage, Plan):
    """The bundle, in the store, and in the registry as the champion; idempotent."""

    stage, version, unit = REGISTER, 4, "bundles"
    reads, writes = ("features", "outcomes", "tuned", "evaluated"), BundleArtefact

    name: str
    encoder: EncoderConfig = Field(exclude=True)  # covered by the fingerprints of the inputs
    large: LargeConfig = Field(exclude=True)
    tracking: TrackingConfig = Field(exclude=True)
    serve: ServeConfig = Field(exclude=True)
    certificate: CertificateConfig = Field(exclude=True)
    gate_limits: GateConfig = Field(exclude=True)  # they decide the promotion, not the bundle

    def write(
        self,
        attempt: Attempt,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
        evaluated: EvaluatedArtefact,
    ) -> None:
        """The bundle of the deployed collaborator, with one network where judge and small are the same."""
        encoder = features.made_by(self.encoder)
        run_remotely(_write_bundle, self, attempt.folder / BUNDLE, encoder, tuned, evaluated)

    def publish(self, artefact: BundleArtefact, context: Context) -> None:
        """Register the bundle, and make it the champion unless there is a reason against it.

        The first champion must save something. A later champion must not be worse than the present champion, by the
        promotion gates that need no traffic. A former champion does not return. `context.promote` overrides the gates.
        `context.promotion` receives the outcome.
        """
        if context.tracking is None:
            return
        model = self.name
        number = register_model(context.tracking, model, artefact.bundle, artefact.fingerprint)
        champions = Champions(Pointer(context.store.control, self.name), context.tracking.uri, model)
        candidate = Champion(
            version=f"{model}/{number}",
            digest=bundle_digest(artefact.bundle),
            bundle=artefact.fingerprint,
            by="run",
            after=log_watermark(log_url(self.serve, context.store.root), self.serve.application or self.name),
        )
        champions.pointer.register(candidate)
        current, reason = champions.pointer.current(), None
        if champions.followed(candidate):
            reason = "it was the champion before"
        elif current is None or current.champion.digest != candidate.digest:
            reason = self._held_back(artefact, current.champion if current else None, context)
        if reason is None:
            if current is not None:
                context.reporter.say(WAITS)
            try:
                champions.introduce(candidate)
            except RefusedByServiceError as error:
                reason = str(error)
        if reason is not None and current is not None:
            champions.write_alias()
        champion = number if reason is None else current and current.champion.number
        context.promotion = {"version": number, "champion": champion, "reason": reason}

    def _held_back(self, artefact: BundleArtefact, champion: Champion | None, context: Context) -> str | None:
        """Why a version must not become the champion; None if it may."""
        if context.promote is not None:
            return None if context.promote else "--no-promote"
        bundle = Bundle.read(artefact.bundle)
        if (reason := why_not_promotable(bundle.policy, bundle.certificates)) or champion is None:
            return reason
        before = context.store.named(self.stage, champion.bundle).as_a(BundleArtefact)
        verdicts = without_traffic(
            Version.of(before, before.bundle),
            Version.of(artefact, artefact.bundle),
            self.gate_limits,
            context.assets_path,
        )
        worst = gates.overall(verdicts)
        return None if worst == "pass" else "; ".join(gate.reason for gate in verdicts if gate.verdict == worst)


def _write_bundle(
    stage: Register, folder: Path, encoder: EncoderConfig, tuned: TunedArtefact, evaluated: EvaluatedArtefact
) -> None:
    """Write the bundle to a new folder."""
    plan, name = tuned.plan, evaluated.deployed
    features, outcomes, sequence = plan.features, plan.outcomes, plan.features.sequence
    candidate, policy, certificates = tuned.load(name), evaluated.policy(name), evaluated.certificates(name)
    encoder = with_dim(encoder, features.dim)
    large = stage.large.with_backbone(lambda backbone: with_dim(in_runtime(backbone, outcomes.runtime), features.dim))
    computed_by = ComputedBy.of(encoder, large, features.device, outcomes.device)
    is_certified = all(certificate.issued for certificate in certificates.values())
    certify_rows, novelty = _certify_rows(candidate, policy, plan)
    bundle = Bundle(
        collaborator=candidate.collaborator.merged(),
        seed=plan.config.seed,
        label_names=sequence.names.labels,
        none_label=sequence.names.none_label,
        task_names=sequence.names.tasks,
        encoder=encoder,
        encoder_identity=features.identity,
        large=large,
        large_identity=outcomes.identity,
        policy=policy,
        learner=plan.config.learner,
        large_head=outcomes.head,
        gate_head=candidate.gate.head,
        certificates=certificates if is_certified else {},
        certified_by=computed_by if is_certified else None,
        metrics=evaluated.result[name]
        | {
            "frontier": evaluated.curves[name]["frontier"],
            "usage": outcomes.usage,
            "asked_delta": stage.certificate.delta,
        },
        learner_state=candidate.state["learner"],
        novelty=novelty,
        certify_rows=certify_rows,
        lineage=Lineage(
            artefacts={source.stage: source.fingerprint for source in (features, outcomes, tuned, evaluated)},
            parent=stage.parent and stage.parent.bundle.digest,
        ),
    )
    bundle.write(folder)


def _certify_rows(candidate: Tuned, policy: Policy, plan: TrainerPlan) -> tuple[Tensor | None, NoveltyReference | None]:
    """The features [R, D] of a sample of certify rows, and how far certify rows lie from all known classes.

    Each is None if there are too few rows; the second also if the learner cannot measure novelty.
    """
    num_rows, num_labels = plan.features.num_rows("certify"), candidate.collaborator.num_labels
    if num_rows < FEWEST_ROWS:
        return None, None
    novelty, shown, distances = Novelty.of(candidate.state["learner"]), [], []
    sides, share = (candidate.collaborator, candidate.gate), min(1.0, MOST_CERTIFY_ROWS / num_rows)
    for part in scored_parts(*sides, plan.features, plan.outcomes, ["certify"], shown=share):
        shown.append(part.features_ND)
        if novelty:
            distances.append(novelty.distances(part.table.judge_logits[:, :num_labels]))
    rows_RD = torch.from_numpy(np.concatenate(shown)[:MOST_CERTIFY_ROWS])
    farthest = candidate.novel.farthest(policy.lowest_cut) if candidate.novel else None
    return rows_RD, NoveltyReference.fit(np.concatenate(distances), farthest) if distances else None
