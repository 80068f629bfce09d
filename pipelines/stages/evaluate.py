"""Stage `evaluate`: the certificate on the certify split, then all metrics on the test split, if it has rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from kcm.cascade.outcome_rows import SPLITS, ScoredOutcomes, Split
from kcm.cascade.policy import POLICY_FILE, Policy
from kcm.certification.certificate import (
    Certificate,
    CertificateConfig,
    certify_policy,
    uncertified_policy,
)
from kcm.certification.ledger import Ledger
from kcm.certification.sample_size import fewest
from kcm.config import Config
from pipelines.batch.mapping import run_remotely
from pipelines.batch.outcome_table import ScoredTable, kept_parts, scored_parts
from pipelines.context import Attempt
from pipelines.stages.controls import better_control
from pipelines.stages.measured import curves_of, kept_wrong, result_of
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import Tuned, TunedArtefact

OUTCOMES = "outcomes.parquet"  # the outcome table of a collaborator
Certifier = Callable[
    [ScoredOutcomes, ScoredOutcomes, Policy, CertificateConfig], tuple[Policy, dict[str | None, Certificate]]
]
"""From validate and certify rows and a searched policy to what is deployed, with its certificates."""
_RESULT, _REPORT, _BETTER, _KEPT_WRONG = "result.json", "report.json", "better_control.json", "kept_wrong.json"


class EvaluatedArtefact(Artefact):
    """The metrics and certificates, and for each collaborator its outcome table, deployed policy and mistakes."""

    kind = "evaluated"

    @property
    def result(self) -> dict[str, Any]:
        """The metrics, by collaborator."""
        return self.json(_RESULT)

    @property
    def deployed(self) -> str:
        """The deployed collaborator; it comes first in the result."""
        return next(iter(self.result))

    @property
    def better_control(self) -> str | None:
        """The sentence on a control that should do better than what is deployed; None if no control is."""
        sentence: str | None = self.json(_BETTER)["sentence"]
        return sentence

    @property
    def curves(self) -> dict[str, Any]:
        """The curves of the report, by collaborator."""
        return self.json(_REPORT)

    @property
    def kept_wrong(self) -> dict[str, Any]:
        """The result of `kept_wrong` for the deployed collaborator."""
        return self.json(f"{self.deployed}/{_KEPT_WRONG}")

    def policy(self, name: str) -> Policy:
        """The policy that a collaborator is deployed with."""
        return Policy.load(self.file(f"{name}/{POLICY_FILE}").parent)

    def certificates(self, name: str) -> dict[str | None, Certificate]:
        """A collaborator's certificates by task; None is the key of the common one."""
        common = dict(self.result[name]["certificate"])
        own = {task: Certificate.model_validate(certificate) for task, certificate in common.pop("tasks").items()}
        return {None: Certificate.model_validate(common)} | own

    @staticmethod
    def write_measured(folder: Path, result: Mapping[str, Any], curves: Mapping[str, Any]) -> None:
        """Write the metrics and curves of all collaborators."""
        write_json(folder / _RESULT, result)
        write_json(folder / _REPORT, curves)


class Evaluate(Stage, Plan):
    """`result.json` and `report.json`; for each collaborator its outcome table, deployed policy and mistakes.

    The certify rows are read once, after everything is frozen. The look at them is first written into the ledger; a
    later look at the same rows may spend less. The first collaborator is deployed, and the rows that choose policies
    say whether a control is better: a choice between two certificates would halve delta (Learn then Test, arXiv
    2110.01052).
    """

    stage, version, unit = "evaluate", 7, "collaborators"
    reads: ClassVar[tuple[str, ...]] = ("features", "outcomes", "tuned")
    writes = EvaluatedArtefact

    certificate: CertificateConfig
    grows: bool = False

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        return super().of(run, grows=run.tasks.grows, **more)  # type: ignore[attr-defined]

    def write(
        self,
        attempt: Attempt,
        features: FeaturesArtefact,
        outcomes: OutcomesArtefact,
        tuned: TunedArtefact,
        **reads: Any,
    ) -> None:
        """Certify and measure one collaborator after the other."""
        collaborators: tuple[str, ...] = tuned.plan.config.collaborators
        write_json(attempt.folder / _BETTER, {"sentence": better_control(tuned)})
        result, report = {}, {}
        certifier = self.certifier(attempt, features, tuned, **reads)
        for number, name in enumerate(collaborators):
            attempt.bar.update(number, len(collaborators))
            arguments = name, tuned, self.certificate, certifier, attempt.folder / name
            result[name], report[name] = run_remotely(measure, *arguments)
        EvaluatedArtefact.write_measured(attempt.folder, result, report)

    def certifier(
        self, attempt: Attempt, features: FeaturesArtefact, tuned: TunedArtefact, *_: Any, **reads: Any
    ) -> Certifier:
        """The test of a policy, once the look at the certify rows is in the ledger."""
        look = Ledger(attempt.context.store.ledger).look(
            features.sequence.ledger_units,
            delta=self.certificate.delta,
            digest=attempt.fingerprint,  # a repeated run takes the same look
            purpose="kcm run",
            grows=self.grows,
        )
        needed = fewest(self.certificate.epsilon, look.next_spend, self.certificate.method)
        units = f"the next one needs at least {needed:,} units to certify on"
        attempt.context.reporter.say(f"[bold]certify[/bold]   {look.sentence}; {units}")
        return partial(certify_policy, delta=look.spend)


class Uncertified(Evaluate):
    """The same for rows that are no random sample: the deployed policy keeps above `threshold`, without a certificate.

    A certificate on such rows would be false: the table of `kcm label` lacks the rows that the small model answers, on
    which most of the loss may occur.
    """

    threshold: float

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        return super().of(run, threshold=run.first_threshold, **more)  # type: ignore[attr-defined]

    def certifier(
        self, attempt: Attempt, features: FeaturesArtefact, tuned: TunedArtefact, *_: Any, **reads: Any
    ) -> Certifier:
        """No test, and no look."""
        attempt.context.reporter.say("[bold]certify[/bold]   nothing: `kcm update` certifies on traffic")
        return partial(uncertified_policy, threshold=self.threshold)


def measure(
    name: str, tuned: TunedArtefact, config: CertificateConfig, certifier: Certifier, folder: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Certify and measure one collaborator; returns its result and its curves, and writes the rest to a new folder."""
    candidate, features, outcomes = tuned.load(name), tuned.plan.features, tuned.plan.outcomes
    folder.mkdir()
    scored = scored_table(candidate, features, outcomes, file=folder / OUTCOMES)
    policy, certificates = certifier(scored.rows("validate"), scored.rows("certify"), candidate.policy, config)
    policy.save(folder)
    write_json(folder / _KEPT_WRONG, kept_wrong(scored, policy, folder / OUTCOMES, features))
    result = result_of(scored, policy, certificates, candidate, features.names)
    return result, curves_of(scored, certificates[None], config)


def scored_table(
    candidate: Tuned,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    splits: Sequence[Split] = SPLITS,
    file: Path | None = None,
) -> ScoredTable:
    """The rows of `splits` as the search of a collaborator scored them; `file` receives the outcome table."""
    parts = scored_parts(
        candidate.collaborator, candidate.gate, features, outcomes, splits, left_out=candidate.left_out
    )
    saved_parts = kept_parts(parts, file) if file else parts
    return ScoredTable.of(saved_parts, candidate.gate, candidate.validate_scores, candidate.policy)
