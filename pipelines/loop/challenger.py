"""The way of a challenger: from a window of the log to a registered version with its promotion gates."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from pydantic import Field
from rich.markup import escape

from kcm.bundle.models import bundle_digest
from kcm.errors import ArtefactError
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.loop.attempts import Attempt
from pipelines.loop.certify.inbox import GivenLabels
from pipelines.loop.stages.examine import GATES, Examine, GatesArtefact
from pipelines.loop.stages.extend import Choose, Extend
from pipelines.loop.stages.grow import Grow, GrowFeatures, GrowOutcomes
from pipelines.loop.stages.reevaluate import Reevaluate
from pipelines.loop.stages.window import Window, WindowArtefact
from pipelines.loop.state import LoopState, log_reader
from pipelines.progress import Reporter
from pipelines.registry import gates
from pipelines.registry.champion import Champion
from pipelines.registry.gates import PromotionGate
from pipelines.registry.promote import champion_now
from pipelines.registry.pyfunc import register_model
from pipelines.result import write_challenger_report
from pipelines.run import run_context
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.stages.register import BundleArtefact, Register
from pipelines.stages.stage import Stage, run_stages
from pipelines.store.artefact import Artefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.tracking.tracking import PARENT_TAG, Tracking

VERDICT_TAG, WINDOW_TAG = "kcm.verdict", "kcm.window"


@dataclass(frozen=True)
class BuiltChallenger:
    """The gates, and the challenger as the champion that it would be; None where the window holds too little."""

    gates: list[PromotionGate]
    candidate: Champion | None = None
    figures: dict[str, Any] = field(default_factory=dict)


class RegisterChallenger(Register):
    """The challenger's bundle, in the store: it is registered with its promotion gates, and not as the champion."""

    parent: str = Field(exclude=True)

    @property
    def continues(self) -> str:
        """Digest of the champion that the challenger was trained from."""
        return self.parent

    def publish(self, artefact: BundleArtefact, context: Context) -> None:
        """Nothing yet."""


def build_challenger(
    config: RunConfig, state: LoopState, attempt: Attempt, labels: GivenLabels | None, reporter: Reporter
) -> BuiltChallenger:
    """Go as far as the promotion gates, the cheap ones first; a window with too little ends at the first.

    Raises ArtefactError where the champion's bundle is missing, DataError for a window that nothing may be learned or
    certified from.
    """
    assert config.update is not None
    parent = champion_bundle(state, attempt)
    window = _window(config, state, attempt, parent, reporter)
    counts = window.description["counts"]
    asked = sum(state == "labelled" for state, *_ in labels.answers.values()) if labels else 0
    figures = {"labels": counts["labels"] + asked, "labels_asked_for": asked, "decisions": counts["decisions"]}
    if unknown := window.description.get("labels_unknown"):
        figures["labels_unknown"] = unknown
    enough = gates.enough_rows(
        counts["large_answers"],
        counts["labels"],
        min_large_answers=config.update.min_large_answers,
        min_labels=config.update.min_labels,
    )
    if enough.verdict == "fail":
        return BuiltChallenger([enough], figures=figures)
    stages = stages_of(config, parent, attempt, labels)
    with run_context(config, stages, reporter) as context:
        context.tracking = Tracking.open(
            config.tracking,
            context.store.root,
            name=config.name,
            key=attempt.name,
            say=lambda line: reporter.say(escape(line)),
        )
        with closing(context.tracking):
            done = {artefact.kind: artefact for _, artefact in run_stages(stages, context, {"window": window})}
            return _registered(config, attempt, done, enough, figures, context)


def stages_of(
    config: RunConfig, parent: BundleArtefact, attempt: Attempt, labels: GivenLabels | None = None
) -> list[Stage]:
    """What follows the window, in its order; with `labels` the challenger is certified by them."""
    return [
        Grow.of(config, parent=parent),
        GrowFeatures.of(config, parent=parent),
        GrowOutcomes.of(config, parent=parent),
        Extend.of(config, parent=parent),
        Choose.of(config, parent=parent),
        Reevaluate.of(config, labels=labels),
        RegisterChallenger.of(config, parent=attempt.champion),
        Examine.of(config, parent=parent),
    ]


def champion_bundle(state: LoopState, attempt: Attempt) -> BundleArtefact:
    """The bundle that an attempt starts from. ArtefactError where it is missing, or is another one."""
    found = next(each for each in reversed(state.champions.pointer.history()) if each.digest == attempt.champion)
    artefact = state.store.named(Register.stage, found.bundle).as_a(BundleArtefact)
    if (digest := bundle_digest(artefact.bundle)) != attempt.champion:
        raise ArtefactError(
            f"the bundle of {found.version} is another one: {digest[:12]}, not {attempt.champion[:12]}",
            where=str(artefact.bundle),
            hint="Restore it, or `kcm promote` another version",
        )
    return artefact


def _window(
    config: RunConfig, state: LoopState, attempt: Attempt, parent: BundleArtefact, reporter: Reporter
) -> WindowArtefact:
    """The window's decisions; no cluster is needed for them."""
    context = Context(config.name, state.store, config.assets_path, config.cluster, reporter)
    with log_reader(config) as log:
        stage = Window.of(
            config,
            application=config.application,
            after=attempt.after,
            upto=attempt.upto,
            promoted_after=attempt.after,
            alarm=None,  # windows begin after the alarm
            parent=parent,
            log=log,
        )
        return stage.build({}, context).as_a(WindowArtefact)


def _registered(
    config: RunConfig,
    attempt: Attempt,
    done: Mapping[str, Artefact],
    enough: PromotionGate,
    figures: Mapping[str, Any],
    context: Context,
) -> BuiltChallenger:
    """Register the challenger with its verdicts and its report, in the registry but not as the champion."""
    tracking = context.tracking
    assert tracking is not None
    bundle = done[BundleArtefact.kind].as_a(BundleArtefact)
    examined = done[GatesArtefact.kind].as_a(GatesArtefact)
    evaluated = done[EvaluatedArtefact.kind].as_a(EvaluatedArtefact)
    found = [enough, *examined.gates]
    model, digest = config.tracking.model_of(config.name), bundle_digest(bundle.bundle)
    tags = {
        PARENT_TAG: attempt.champion,
        VERDICT_TAG: gates.overall(found),
        WINDOW_TAG: f"{attempt.after + 1}-{attempt.upto}",
    }
    number = register_model(tracking, model, bundle.bundle, bundle.fingerprint, tags)
    before, after = examined.calls_saved
    name = next(iter(evaluated.result))
    certificate = evaluated.certificates(name)[None]
    verdicts = {"pass": 1.0, "undecided": 0.5, "fail": 0.0}
    metrics: dict[str, float | None] = {f"gates/{gate.name}": verdicts[gate.verdict] for gate in found}
    report = context.store.root / "runs" / config.name / f"challenger-{number}.html"
    lineage = {artefact.stage: artefact.fingerprint for artefact in done.values()}
    usage = done[OutcomesArtefact.kind].as_a(OutcomesArtefact).usage
    write_challenger_report(config, evaluated, found, f"{model}/{number}", lineage, usage, report)
    context.store.storage.keep(report)
    tracking.log({}, metrics | {"calls_saved/before": before, "calls_saved/after": after}, examined.folder / GATES)
    tracking.log({}, {}, report)
    tracking.finish()
    candidate = champion_now(f"{model}/{number}", digest, bundle.fingerprint, by="update", parent=attempt.champion)
    return BuiltChallenger(
        found,
        candidate,
        dict(figures)
        | {
            "calls_saved_before": before,
            "calls_saved_after": after,
            "certificate": {
                "valid": certificate.valid and certificate.decision != "escalate_all",
                "bound": certificate.bound,
                "window": [attempt.after, attempt.upto],
                "delta": certificate.delta,
                "statement": certificate.statement,
                "expires_at": certificate.window and certificate.window.expires_at.isoformat(),
            },
            "gates_path": str(examined.folder / GATES),
            "challenger_report": str(report),
        },
    )
