"""Stage `reevaluate`: the challenger certified on a window of traffic, and measured on the test rows of all tasks.

What `evaluate` does for a run, but that no labelled certify rows are read: the certificate comes from the window's
certify decisions, and the attempt is written into the lineage's ledger before they are.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field

from kcm.cascade.table import SPLITS
from kcm.certify.certificate import CertificateConfig
from kcm.config import Config
from kcm.encoders import EncoderConfig
from pipelines.batch.scored_parts import scored_parts
from pipelines.context import Attempt, Context
from pipelines.loop.certify.inbox import GivenLabels
from pipelines.loop.certify.judged import JudgedWindow, window_features
from pipelines.loop.certify.lineage import LineageLedger
from pipelines.loop.certify.recertify import certify_window, planned_bet
from pipelines.loop.config import UpdateConfig
from pipelines.loop.stages.window import WindowArtefact
from pipelines.stages.evaluate import OUTCOMES, EvaluatedArtefact, curves_of, result_of
from pipelines.stages.stage import Plan, Stage
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcome_table import ScoredTable, kept_parts
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TunedArtefact

JUDGED = "window.parquet"


class Recertification(Plan):
    """What is promised, for how long, and by which labels on disagreements, if any."""

    application: str
    certificate: CertificateConfig
    expires_days: float
    encoder: EncoderConfig = Field(exclude=True)  # by the fingerprint of the features
    labels: GivenLabels | None = None

    def write(
        self,
        attempt: Attempt,
        window: WindowArtefact,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
    ) -> None:
        """Certify and measure the first collaborator; its view of the window is written beside."""
        name = tuned.plan.config.collaborators[0]
        found, names = tuned.load(name), features.names
        rows = window.of_purpose("validate", "certify", "test")
        features_ND = window_features(
            rows, self.encoder.in_runtime(features.runtime), attempt.context, scratch=attempt.scratch, bar=attempt.bar
        )
        judged = JudgedWindow.of(rows, features_ND, found.collaborator, found.gate, found.policy, names.labels)
        floor = window.share_floor
        planned = judged.of_purpose("validate")
        bet = planned_bet(planned.table, planned.score, planned.label, found.policy, self.certificate.epsilon, floor)
        certify = judged.of_purpose("certify")
        policy, certificates = certify_window(
            certify.table if self.labels is None else self.labels.of(certify.table),
            certify.score,
            certify.label,
            found.policy,
            self.certificate,
            scope=window.scope(self.expires_days),
            floor=floor,
            delta=self._spent(attempt),
            bet=bet,
            labels=None if self.labels is None else self.labels.plan.draw,
        )
        folder = attempt.folder / name
        folder.mkdir()
        parts = scored_parts(found.collaborator, found.gate, features, outcomes, SPLITS)
        scored = ScoredTable.of(kept_parts(parts, folder / OUTCOMES), found.gate, found.validate_scores, found.policy)
        EvaluatedArtefact.write_deployed(folder, policy, certificates)
        judged.under(policy).write(folder / JUDGED)
        EvaluatedArtefact.write_measured(
            attempt.folder,
            {name: result_of(scored, policy, certificates, found, names.tasks)},
            {name: curves_of(scored, certificates[None], self.certificate)},
        )

    def _spent(self, attempt: Attempt) -> float:
        """What the look may spend; that of labels was written down before they were drawn."""
        if self.labels is not None:
            return self.labels.plan.delta
        ledger = LineageLedger(attempt.context.store.control, self.application)
        return ledger.spend(attempt.fingerprint, self.certificate.delta).spend


class Reevaluate(Stage):
    """`result.json` and `report.json`; the outcome table, deployed policy and certificates, and the judged window."""

    stage, version, unit = "reevaluate", 1, "collaborators"
    reads, writes = ("window", "features", "outcomes", "tuned"), EvaluatedArtefact

    name: str
    encoder: EncoderConfig
    certificate: CertificateConfig
    update: UpdateConfig
    labels: GivenLabels | None = None

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration; without labels, unless some are given."""
        return super().of(run, **({"labels": None} | more))

    def plan(
        self,
        context: Context,
        window: WindowArtefact,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
    ) -> Recertification:
        """The promise, for the application that the window is of."""
        return Recertification(
            application=self.name,
            certificate=self.certificate,
            expires_days=self.update.expires_days,
            encoder=features.sequence.with_head(self.encoder),
            labels=self.labels,
        )
