"""The certificate of a challenger, from a window of traffic (docs/certificates.md).

An attempt that may succeed is recorded in the lineage's ledger before the certify decisions are read. Labels that
callers volunteer are never read: people report errors, so these are no sample. Labels that the operator gives in a file
can only show that a disagreement is no loss; without a label it counts as lost. So whichever items were labelled, and
whoever chose them, the certificate errs on the safe side.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pydantic import Field

from kcm.cascade.outcome_rows import ScoredOutcomes
from kcm.cascade.policy import Policy
from kcm.certification.certificate import Certificate, CertificateConfig, CertifiedWindow
from kcm.certification.window import TrafficCertificate, can_certify, certify_traffic
from kcm.encoders import EncoderConfig
from kcm.errors import DataError
from pipelines.context import Attempt
from pipelines.loop.window.judged_window import JudgedWindow, window_features
from pipelines.loop.window.stage import WindowArtefact, WindowFacts
from pipelines.stages.evaluate import Certifier, Evaluate
from pipelines.store.features import FeaturesArtefact
from pipelines.store.records import StoredLedger
from pipelines.training.artefacts import TunedArtefact

JUDGED = "window.parquet"


def certify_window(
    window: JudgedWindow,
    policy: Policy,
    config: CertificateConfig,
    facts: WindowFacts,
    *,
    delta: float,
    expires_at: datetime,
) -> tuple[Policy, dict[str | None, TrafficCertificate]]:
    """The policy to deploy and its certificates by task; None is the key of the decision for all other requests.

    `judged` holds the certify decisions of the window of `facts`. `policy` was chosen on validate rows: for every
    decision in it, the result deploys the searched threshold or the stricter certified one. `delta` is the share of the
    lineage's ledger for this attempt, divided equally among the decisions of the policy; a task without rows loses its
    own threshold and follows the common one.
    """
    share = delta / (1 + len(policy.task_decisions))
    certificates: dict[str | None, TrafficCertificate] = {}
    for task, decision in ((None, policy.decision), *policy.task_decisions.items()):
        if not len(rows := window.of_task(task, policy.task_decisions)):
            continue
        traffic, answered_at = rows.traffic(facts.share_floor), rows.rows["answered_at"]
        certified_on = CertifiedWindow(
            application=facts.application,
            after=facts.after,
            upto=facts.upto,
            begins_at=answered_at.min().to_pydatetime(),
            ends_at=answered_at.max().to_pydatetime(),
            expires_at=expires_at,
            num_decisions=len(rows),
            num_asked=int(traffic.asked.sum()),
            num_labels=rows.num_labels,
        )
        certificates[task] = certify_traffic(traffic, decision, config, certified_on, delta=share)
    if None not in certificates:
        reason = "no decision of a certify unit follows the policy's common decision"
        raise DataError(reason, where=facts.where, hint="Wait for more traffic")
    tasks = {task: certificate.route for task, certificate in certificates.items() if task is not None}
    deployed = policy.model_copy(update={"decision": certificates[None].route, "task_decisions": tasks})
    return deployed, certificates


def can_certify_window(
    window: JudgedWindow, policy: Policy, config: CertificateConfig, facts: WindowFacts, delta: float
) -> bool:
    """Whether any decision of the policy has enough units; known before the window is read, so this is no look."""
    share = delta / (1 + len(policy.task_decisions))
    parts = [window.of_task(task, policy.task_decisions) for task in (None, *policy.task_decisions)]
    return any(can_certify(rows.traffic(facts.share_floor), config, share) for rows in parts if len(rows))


class EvaluateTraffic(Evaluate):
    """The challenger certified on a window's certify decisions, and measured on the test rows of all tasks.

    It reads no labelled certify rows. `JUDGED` holds its answers to the window. `labels` of people, by item, replace
    the large model as the reference: a kept item is not lost if its label is the challenger's answer.
    """

    reads = ("window", *Evaluate.reads)

    name: str
    expires_days: float
    labels: dict[str, str] = Field({})
    encoder: EncoderConfig = Field(exclude=True)  # by fingerprint of the features

    def certifier(
        self, attempt: Attempt, features: FeaturesArtefact, tuned: TunedArtefact, window: WindowArtefact
    ) -> Certifier:
        """The test on the window, once its look is in the lineage's ledger."""
        (name,), facts = tuned.plan.config.collaborators, window.facts
        candidate, rows = tuned.load(name), window.of_purpose("validate", "certify", "test")
        features_ND = window_features(rows, features.made_by(self.encoder), attempt, attempt.scratch)
        label_names = features.names.labels
        judged_window = JudgedWindow.by(candidate.collaborator, candidate.gate, rows, features_ND, label_names)
        judged_window = judged_window.with_labels(self.labels)
        judged_window.write(attempt.folder / JUDGED)
        certify = judged_window.of_purpose("certify")
        delta = self._spend(attempt, certify, candidate.policy, facts)
        expires_at = datetime.now(UTC) + timedelta(days=self.expires_days)
        return partial(_by_window, window=certify, facts=facts, delta=delta, expires_at=expires_at)

    def _spend(self, attempt: Attempt, certify: JudgedWindow, policy: Policy, facts: WindowFacts) -> float:
        """The delta of this look; the same window with labels is another one.

        A window with too few units certifies nothing whatever it holds, so it costs no look.
        """
        ledger = StoredLedger.of_lineage(attempt.context.store.control, self.name)
        planned = ledger.next_spend(self.certificate.delta, attempt.fingerprint)
        if not can_certify_window(certify, policy, self.certificate, facts, planned):
            return planned
        return ledger.look(self.certificate.delta, attempt.fingerprint).spend


def _by_window(
    validate: ScoredOutcomes,
    certify: ScoredOutcomes,
    policy: Policy,
    config: CertificateConfig,
    *,
    window: JudgedWindow,
    facts: WindowFacts,
    **promise: Any,
) -> tuple[Policy, dict[str | None, Certificate]]:
    """A `Certifier` that reads the window in place of labelled rows."""
    deployed, certificates = certify_window(window, policy, config, facts, **promise)
    return deployed, dict(certificates)
