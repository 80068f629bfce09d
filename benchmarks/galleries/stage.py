"""Stage `retrieval`: pictures and captions searched by each other, with the collaborators of a run over pairs.

The small model orders a gallery by its log-odds of a match and the cosine of its dual encoder, the judge gives the
confidence, and the large model's dual encoder orders by its cosine. Every picture and every caption of a split is a
query of its task once. All choices are made on validate queries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from kcm.cascade.evaluation import router_quality
from kcm.cascade.gate import GateName
from kcm.cascade.policy import Decision, Policy
from kcm.cascade.search import TuneConfig
from kcm.certify.certificate import CertificateConfig, certificates_json, certify_policy
from kcm.certify.ledger import split_fingerprint
from kcm.config import Config
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.inputs.content import Part
from kcm.large import LargeConfig
from kcm.metrics.intervals import Interval, paired_difference
from kcm.tasks import TaskSequence
from pipelines.batch.encoding import encoded
from pipelines.config import RunConfig
from pipelines.context import Attempt, Context
from pipelines.progress import Reporter
from pipelines.run import SEARCH, run_context
from pipelines.stages.evaluate import look_spend
from pipelines.stages.stage import Plan, Stage, run_stages
from pipelines.store.artefact import Artefact, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.training.artefacts import TunedArtefact

from .gallery import Gallery
from .quality import Retrieved
from .scores import Vectors, galleries, matching_rows
from .search import Candidate, RetrievalConfig, candidates, cheapest, queries, within_share

_RESULT = "retrieval.json"


class RetrievalArtefact(Artefact):
    """The metrics of retrieval."""

    kind = "retrieved"

    @property
    def result(self) -> dict[str, Any]:
        """Figures by collaborator, and the differences between collaborators."""
        result: dict[str, Any] = json.loads((self.folder / _RESULT).read_text(encoding="utf-8"))
        return result


class Search(Config):
    """Settings of the search on validate queries."""

    max_loss: float
    gates: tuple[GateName, ...]
    seed: int


class Measuring(Plan):
    """The settings, and the dual encoders."""

    retrieval: RetrievalConfig
    certificate: CertificateConfig
    search: Search
    small: EncoderConfig = Field(exclude=True)  # identified by the fingerprints of the artefacts read
    large: EncoderConfig = Field(exclude=True)

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> None:
        """The figures of all collaborators."""
        sequence = features.sequence.load()
        rows = matching_rows(sequence)

        def embedded(encoder: EncoderConfig, part: Part) -> np.ndarray:
            scratch = attempt.scratch / Path(encoder.name).name / part
            return encoded(attempt.context, encoder.of_part(part), rows, scratch=scratch, bar=attempt.bar)

        small, large = (Vectors(embedded(each, "image"), embedded(each, "text")) for each in (self.small, self.large))
        certify_rows = split_fingerprint(_certify_ids(sequence))
        spend = look_spend(attempt.context.store, certify_rows, self.certificate, attempt.fingerprint)
        measured: dict[str, Any] = {}
        deployed: dict[str, Retrieved] = {}
        for name in tuned.plan.config.collaborators:
            collaborator = tuned.load(name).collaborator
            found = galleries(rows, small, large, collaborator, sequence.label_names)
            measured[name], deployed[name] = _figures(found, self, spend)
        write_json(attempt.folder / _RESULT, {"collaborators": measured, "differences": _differences(deployed)})


class Retrieval(Stage):
    """R@K of small, large and cascade, both ways, with a certificate."""

    stage, version = "retrieval", 2
    reads, writes = ("features", "outcomes", "tuned"), RetrievalArtefact

    retrieval: RetrievalConfig
    certificate: CertificateConfig
    tune: TuneConfig
    encoder: EncoderConfig
    large: LargeConfig
    seed: int

    def check(self) -> None:
        """Both sides must have a dual encoder."""
        large = self.large.backbone if self.large.fits_on_train else None
        if not (large and self.encoder.dual and large.dual):
            raise ConfigError(
                "retrieval needs two dual encoders",
                where="encoder, large",
                hint="Give encoders of kind image_text, the large one to adapter 'classifier'",
            )

    def plan(
        self, context: Context, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> Measuring:
        """The encoders with the heads that were fitted for them."""
        sequence = features.sequence
        return Measuring(
            retrieval=self.retrieval,
            certificate=self.certificate,
            search=Search(
                max_loss=self.tune.allowed_loss(self.certificate.epsilon), gates=self.tune.gates, seed=self.seed
            ),
            small=sequence.with_head(self.encoder),
            large=sequence.large_with_head(self.large).backbone,
        )


def retrieval(config: RunConfig, settings: RetrievalConfig, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run the stages up to the search, or take them from the cache, and measure retrieval; an entry per collaborator.

    Raises ConfigError for a run that is not over pairs with two dual encoders.
    """
    stages = [*(stage.of(config) for stage in SEARCH), Retrieval.of(config, retrieval=settings)]
    with run_context(config, stages, reporter) as context:
        *_, (_, artefact) = run_stages(stages, context)
    assert isinstance(artefact, RetrievalArtefact)
    return artefact.result


def _certify_ids(sequence: TaskSequence) -> list[str]:
    """The ids of the certify rows, shared with the certificate of matching: both use one ledger."""
    return [row for task in sequence.tasks for row in task.splits["certify"]["id"].to_pylist()]


def _figures(found: list[Gallery], plan: Measuring, spend: float) -> tuple[dict[str, Any], Retrieved]:
    """One collaborator's part of the result, and its test queries under the deployed policy."""
    settings, search = plan.retrieval, plan.search
    tried = candidates(found, settings, search.gates, search.seed)
    best, searched = cheapest(tried, search.max_loss, plan.certificate)
    certify = best.score(queries(found, "certify", best.choice))
    policy, certificates = certify_policy(best.rows, certify, searched, plan.certificate, delta=spend)
    deployed = Retrieved.of(found, best, policy)
    bounded, decision = within_share(tried, settings.max_share)
    within = Retrieved.of(found, bounded, Policy(gate=bounded.gate.name, decision=decision))
    figures = {
        "deployed": _retrieved(best, policy, deployed),
        "certificate": certificates_json(certificates),
        "routing": asdict(router_quality(deployed.rows)),
        "within_share": {"max_share": settings.max_share} | _retrieved(bounded, decision, within),
    }
    return figures, deployed


def _retrieved(candidate: Candidate, policy: Policy | Decision, found: Retrieved) -> dict[str, Any]:
    return {
        "num_queries": len(found.kept),
        "choice": asdict(candidate.choice) | {"gate": candidate.gate.name},
        "policy": policy.model_dump(mode="json"),
        "escalated": float((~found.kept).mean()),
        "pair_share": found.share,
        "recall": found.recalls(),
        "difference": _ends(found.difference()),
    }


def _differences(deployed: Mapping[str, Retrieved]) -> dict[str, Any]:
    """R@1 of the first collaborator's cascade minus each other's, and the same of the small models alone."""
    first, *others = deployed

    def minus(model: str, other: str) -> dict[str, float] | None:
        one, two = (getattr(deployed[name], model) == 0 for name in (first, other))
        return _ends(paired_difference(one, two, deployed[first].rows.group))

    return {f"{first} - {other}": {model: minus(model, other) for model in ("cascade", "small")} for other in others}


def _ends(interval: Interval | None) -> dict[str, float] | None:
    return asdict(interval) if interval else None
