"""From a window of the log to a registered challenger with its promotion gates.

    window (-> ask_again) -> tasks -> features, outcomes -> train -> tune -> evaluate -> register -> gates

The stages are those of a run that appends a table, with the window as the next task. Each step is an artefact, so a
killed turn resumes at its last finished step.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from kcm.bundle.frozen_models import bundle_digest
from kcm.errors import DataError
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.loop.attempts import UpdateAttempt
from pipelines.loop.checks import GATES, Examine, GatesArtefact
from pipelines.loop.label_file import NOTHING_READ
from pipelines.loop.state import LoopState, log_reader
from pipelines.loop.window.ask_again import AskAgain
from pipelines.loop.window.certify import EvaluateTraffic
from pipelines.loop.window.naming import ClassNames
from pipelines.loop.window.stage import LogWindow, WindowArtefact
from pipelines.loop.window.task import TrafficFeatures, TrafficOutcomes, TrafficTasks
from pipelines.progress import Reporter
from pipelines.registry import gates
from pipelines.registry.champion import Champion
from pipelines.registry.gates import PromotionGate
from pipelines.registry.pyfunc import register_model
from pipelines.result import write_challenger_report
from pipelines.run import context_of, recorded, run_context
from pipelines.serve.log.window import row_ids
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.parent import BundleArtefact, Parent
from pipelines.stages.register import Register
from pipelines.stages.stage import Stage, run_stages
from pipelines.stages.train import Train
from pipelines.stages.tune import Tune
from pipelines.store.artefact import Artefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.tracking.tracking import PARENT_TAG

VERDICT_TAG, WINDOW_TAG = "kcm.verdict", "kcm.window"
NOVEL_SHARE = 0.05  # the default of an update: traffic brings new classes, a table need not


@dataclass(frozen=True)
class BuiltChallenger:
    """The gates, and the challenger as a champion record; None if the window holds too little."""

    gates: list[PromotionGate]
    candidate: Champion | None = None
    figures: dict[str, Any] = field(default_factory=dict)


class RegisterChallenger(Register):
    """The challenger's bundle in the store; it is registered with its checks, and not as the champion."""

    def publish(self, artefact: BundleArtefact, context: Context) -> None:
        """Nothing yet."""


def build_challenger(
    config: RunConfig, state: LoopState, attempt: UpdateAttempt, labels: Mapping[str, str], reporter: Reporter
) -> BuiltChallenger:
    """Compute everything up to the promotion gates, cheap gates first; a window with too little data ends at the first.

    Raises ArtefactError if the champion's bundle is missing, and DataError for a window from which nothing may be
    learned or certified, or for `labels` of items that it does not hold.
    """
    champions = reversed(state.champions.pointer.history())
    champion = next(champion for champion in champions if champion.digest == attempt.champion)
    parent, names = Parent.of(state.store, champion), ClassNames.of(config)
    context = context_of(config, state.store, reporter)
    with log_reader(config) as log:  # needs no cluster
        stage = LogWindow.read_from(log, config, parent, attempt.after, attempt.upto, names, champion.version)
        window = stage.build({}, context).as_a(WindowArtefact)
    facts = window.facts
    _require_known(labels, window, (*parent.bundle.answer_names, *facts.new_labels))
    figures: dict[str, Any] = {
        "labels": facts.num_labels,
        "labels_of_file": len(labels),
        "labels_unknown": facts.unknown_labels,
        "labels_untaught": list(facts.untaught_labels),
        "labels_uncounted": facts.num_uncounted,
    }
    rows_gate = gates.enough_rows(facts.num_large_answers, config.require_update().min_large_answers)
    if rows_gate.verdict == "fail":
        return BuiltChallenger([rows_gate], figures=figures)
    parent = replace(parent, forgotten_rows=frozenset(facts.forgotten_rows))
    stages = stages_of(config, parent, labels)
    if facts.new_labels:
        stages.insert(0, AskAgain.of(config, parent=parent))
    with run_context(config, stages, reporter) as context, recorded(config, context, attempt.name):
        artefacts = {artefact.kind: artefact for _, artefact in run_stages(stages, context, {"window": window})}
        return _registered(config, state, attempt, artefacts, rows_gate, figures, context)


def stages_of(config: RunConfig, parent: Parent, labels: Mapping[str, str] | None = None) -> list[Stage]:
    """The stages of a run whose next task is the window, then the checks; `labels` as in `EvaluateTraffic`."""
    novel_share = NOVEL_SHARE if config.tune.novel_share is None else config.tune.novel_share
    expires_days = config.require_update().expires_days
    return [
        TrafficTasks.of(config, parent=parent),
        TrafficFeatures.of(config, parent=parent),
        TrafficOutcomes.of(config, parent=parent),
        Train.of(config, parent=parent, only=parent.collaborator),
        Tune.of(config, parent=parent, tune=config.tune.model_copy(update={"novel_share": novel_share})),
        EvaluateTraffic.of(config, parent=parent, expires_days=expires_days, labels=dict(labels or {})),
        RegisterChallenger.of(config, parent=parent),
        Examine.of(
            config,
            parent=parent,
            champion=parent.artefact.fingerprint,
            limits=config.gate_limits,
            upstreams=config.upstreams,
        ),
    ]


def _registered(
    config: RunConfig,
    state: LoopState,
    attempt: UpdateAttempt,
    artefacts: Mapping[str, Artefact],
    rows_gate: PromotionGate,
    figures: Mapping[str, Any],
    context: Context,
) -> BuiltChallenger:
    """Register the challenger with its verdicts and its report, in the registry but not as the champion."""
    tracking = context.tracking
    assert tracking is not None
    bundle = artefacts[BundleArtefact.kind].as_a(BundleArtefact)
    examined = artefacts[GatesArtefact.kind].as_a(GatesArtefact)
    evaluated = artefacts[EvaluatedArtefact.kind].as_a(EvaluatedArtefact)
    usage = artefacts[OutcomesArtefact.kind].as_a(OutcomesArtefact).usage
    verdicts = [rows_gate, *examined.verdicts.gates]
    model = config.name
    tags = {
        PARENT_TAG: attempt.champion,
        VERDICT_TAG: gates.overall(verdicts),
        WINDOW_TAG: f"{attempt.after + 1}-{attempt.upto}",
    }
    number = register_model(tracking, model, bundle.bundle, bundle.fingerprint, tags)
    version = f"{model}/{number}"
    report = context.store.root / "runs" / config.name / f"challenger-{number}.html"
    lineage = {artefact.stage: artefact.fingerprint for artefact in artefacts.values()}
    write_challenger_report(config, evaluated, verdicts, version, lineage, usage, report)
    context.store.storage.keep(report)
    before, after = examined.verdicts.calls_saved
    for file in (examined.folder / GATES, report):
        tracking.log({}, file)
    certificate = evaluated.certificates(evaluated.deployed)[None]
    digest = bundle_digest(bundle.bundle)
    candidate = Champion(
        version=version, digest=digest, bundle=bundle.fingerprint, by="update", parent=attempt.champion
    )
    state.champions.pointer.register(candidate)
    return BuiltChallenger(
        verdicts,
        candidate,
        dict(figures)
        | {
            "calls_saved_before": before,
            "calls_saved_after": after,
            "certificate": {
                "valid": certificate.valid and certificate.decision != "escalate_all",
                "bound": certificate.bound,
                "statement": certificate.statement,
            },
            "challenger_report": str(report),
        },
    )


def _require_known(labels: Mapping[str, str], window: WindowArtefact, known: Collection[str]) -> None:
    """Raise DataError for labels of items that a window does not hold, or off the label list."""
    items = set(row_ids(window.table).to_pylist()) if labels else ()
    for item, label in labels.items():
        if item not in items:
            raise DataError(f"item {item!r} is not in the window of the last turn", where="--labels", hint=NOTHING_READ)
        if label not in known:
            raise DataError(
                f"label {label!r} of item {item!r} is not in the label list", where="--labels", hint=NOTHING_READ
            )
