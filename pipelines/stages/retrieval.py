"""Retrieval both ways with the collaborators of a run over pairs: R@K of small, large and cascade, and a certificate.

The small model orders a gallery by its log-odds of a match and the cosine of its dual encoder, the judge says how sure
that is, and the large model's dual encoder orders by its cosine. Every picture and every caption of a split is a query
of its task once. What is chosen is chosen on validate queries.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from kcm.cascade.evaluation import router_quality
from kcm.cascade.policy import Decision, Policy
from kcm.certify.certificate import certificates_json, certify_policy
from kcm.encoders import EncoderConfig
from kcm.errors import ConfigError
from kcm.metrics.intervals import Interval, paired_difference
from kcm.retrieval.gallery import Gallery
from kcm.retrieval.quality import Retrieved
from kcm.retrieval.search import Candidate, RetrievalConfig, candidates, cheapest, queries, within_share
from kcm.tasks import TaskSequence
from pipelines.batch.galleries import Vectors, galleries, matching_rows
from pipelines.cluster import connected
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Bar, Reporter
from pipelines.run import stages, walk_plan
from pipelines.stages.evaluate import look_spend
from pipelines.stages.features import encoded
from pipelines.stages.tasks import load_sequence
from pipelines.store.artefact import Artefact, ArtefactStore, Recipe, explained, write_json
from pipelines.store.lock import locked
from pipelines.training.tuned import Tuned

VERSION = 2

_RESULT = "retrieval.json"


def retrieval(config: RunConfig, settings: RetrievalConfig, reporter: Reporter | None = None) -> dict[str, Any]:
    """Run the stages up to `tune`, or take them from the cache, and measure retrieval; one entry per collaborator.

    Raises ConfigError for a run that is not over pairs with two dual encoders.
    """
    context = Context(config, ArtefactStore(config.storage_path), reporter or Reporter())
    _dual_encoders(config)
    folder = context.run_folder
    with explained(folder), locked(folder, f"the run {config.name!r}"), connected(config.cluster):
        done: dict[str, Artefact] = {}
        for stage, artefact in stages(context):
            done[stage] = artefact
            if stage == "tune":
                break
        found = _measure(context, settings, done)
    result: dict[str, Any] = json.loads((found.folder / _RESULT).read_text(encoding="utf-8"))
    return result


def _dual_encoders(config: RunConfig) -> tuple[EncoderConfig, EncoderConfig]:
    """The dual encoders of the small and of the large side."""
    small, large = config.encoder, config.large.backbone if config.large.fits_on_train else None
    if large and small.dual and large.dual:
        return small, large
    raise ConfigError(
        "retrieval needs two dual encoders",
        where="encoder, large",
        mend="Give encoders of kind image_text, the large one to adapter 'classifier'",
    )


def _measure(context: Context, settings: RetrievalConfig, done: Mapping[str, Artefact]) -> Artefact:
    config = context.config  # names the fitted heads, once the stages have run
    section = {
        "retrieval": settings.model_dump(mode="json"),
        "certificate": config.certificate.model_dump(mode="json"),
        "search": {"max_loss": config.tune.max_loss, "gates": config.tune.gates, "seed": config.seed},
    }
    recipe = Recipe("retrieval", VERSION, section, tuple(done[stage] for stage in ("features", "outcomes", "tune")))

    def write(folder: Path, scratch: Path, bar: Bar) -> None:
        sequence = load_sequence(done["tasks"])
        small, large = _vectors(context, sequence, scratch, bar)
        plan, _ = walk_plan(config, done["tasks"], done["features"], done["outcomes"])
        spend = look_spend(context, _certify_ids(sequence), config.certificate, recipe.fingerprint)
        measured, deployed = {}, {}
        for name in plan.collaborators:
            tuned = Tuned.load(done["tune"].folder / name, plan, name)
            found = galleries(matching_rows(sequence), small, large, tuned.collaborator, sequence.label_names)
            measured[name], deployed[name] = _figures(found, settings, context, spend)
        write_json(folder / _RESULT, {"collaborators": measured, "differences": _differences(deployed)})

    return context.build(recipe, write)


def _vectors(context: Context, sequence: TaskSequence, scratch: Path, bar: Bar) -> tuple[Vectors, Vectors]:
    """The rows that match, through the dual encoder of the small side and of the large one."""
    rows = matching_rows(sequence)

    def embedded(encoder: EncoderConfig, part: str) -> np.ndarray:
        name = Path(encoder.name).name
        return encoded(context, encoder.of_part(part), rows, scratch=scratch / name / part, bar=bar)

    small, large = _dual_encoders(context.config)
    return Vectors(embedded(small, "image"), embedded(small, "text")), Vectors(
        embedded(large, "image"), embedded(large, "text")
    )


def _certify_ids(sequence: TaskSequence) -> list[str]:
    """The certify rows that matching is certified on, too: all promises about them share a ledger."""
    return [row for task in sequence.tasks for row in task.splits["certify"]["id"]]


def _figures(
    found: list[Gallery], settings: RetrievalConfig, context: Context, spend: float
) -> tuple[dict[str, Any], Retrieved]:
    """One collaborator's part of the result, and its test queries under the deployed policy."""
    config = context.config
    tried = candidates(found, settings, config.tune.gates, config.seed)
    best, searched = cheapest(tried, config.tune.max_loss, config.certificate)
    certify = best.score(queries(found, "certify", best.choice))
    policy, certificates = certify_policy(best.rows, certify, searched, config.certificate, delta=spend)
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
        pair = (getattr(deployed[name], model) == 0 for name in (first, other))
        return _ends(paired_difference(*pair, deployed[first].rows.group))

    return {f"{first} - {other}": {model: minus(model, other) for model in ("cascade", "small")} for other in others}


def _ends(interval: Interval | None) -> dict[str, float] | None:
    return interval and asdict(interval)
