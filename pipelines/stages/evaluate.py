"""Stage `evaluate`: the certificate on the certify split, then all metrics on the test split, where it has rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np

from kcm.bundle.runtime import logits
from kcm.cascade.evaluation import (
    LabelQuality,
    RouteQuality,
    calls_saved_at,
    label_qualities,
    out_of_scope_quality,
    route_quality,
    router_quality,
)
from kcm.cascade.frontier import Frontier
from kcm.cascade.novelty import NovelRows
from kcm.cascade.policy import POLICY_FILE, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.table import SPLITS, MeasuredRows, Split
from kcm.certification.certificate import (
    Certificate,
    CertificateConfig,
    certificate_curve,
    certificates_json,
    certify_policy,
    uncertified_policy,
)
from kcm.certification.forecast import CertificateForecast
from kcm.certification.ledger import Ledger, Look, Units
from kcm.collaborator.collaborator import Collaborator
from kcm.config import Config
from kcm.explain.networks import base_logits
from kcm.inputs.vectors import matrix
from kcm.kan import num_parameters
from kcm.large import PromptMode
from kcm.metrics.calibration import expected_calibration_error, reliability
from kcm.metrics.continual import summarise
from kcm.metrics.routing import prompt_effect
from kcm.report.reading import NAMES
from kcm.report.words import forecast_words
from pipelines.batch.mapping import run_remotely
from pipelines.batch.outcome_table import PartRows, ScoredTable, kept_parts, part_rows, scored_parts
from pipelines.context import Attempt
from pipelines.stages.kept_wrong import kept_wrong
from pipelines.stages.stage import Plan, Stage
from pipelines.store.artefact import Artefact, ArtefactStore, write_json
from pipelines.store.features import FeaturesArtefact
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import Names
from pipelines.training.artefacts import RANKINGS, Tuned, TunedArtefact, is_better, standing

OUTCOMES = "outcomes.parquet"  # the outcome table of a collaborator
MAX_LABELS = 100  # in the result
Certifier = Callable[
    [ScoredOutcomes, ScoredOutcomes, Policy, CertificateConfig], tuple[Policy, dict[str | None, Certificate]]
]
"""From validate and certify rows and a searched policy to what is deployed, with its certificates."""
_RESULT, _REPORT, _CHOICE, _KEPT_WRONG = "result.json", "report.json", "choice.json", "kept_wrong.json"


class EvaluatedArtefact(Artefact):
    """The metrics and certificates, and for each collaborator its outcome table, deployed policy and mistakes."""

    kind = "evaluated"

    @property
    def result(self) -> dict[str, Any]:
        """The metrics, by collaborator."""
        return self.json(_RESULT)

    @property
    def deployed(self) -> str:
        """The collaborator that is deployed, which comes first in all that is measured."""
        return next(iter(self.result))

    @property
    def choice(self) -> str:
        """Why this collaborator is deployed, in a sentence."""
        return str(self.json(_CHOICE)["reason"])

    @property
    def curves(self) -> dict[str, Any]:
        """The curves of the report, by collaborator."""
        return self.json(_REPORT)

    @property
    def kept_wrong(self) -> dict[str, Any]:
        """What `kept_wrong` found with the deployed collaborator."""
        return self.json(f"{self.deployed}/{_KEPT_WRONG}")

    def policy(self, name: str) -> Policy:
        """The policy that a collaborator is deployed with."""
        return Policy.load(self.file(f"{name}/{POLICY_FILE}").parent)

    def certificates(self, name: str) -> dict[str | None, Certificate]:
        """A collaborator's certificates by task; None is the key of the common one."""
        common = dict(self.result[name]["certificate"])
        own = {task: Certificate.model_validate(each) for task, each in common.pop("tasks").items()}
        return {None: Certificate.model_validate(common)} | own

    @staticmethod
    def write_measured(folder: Path, result: Mapping[str, Any], curves: Mapping[str, Any]) -> None:
        """Write the metrics and curves of all collaborators."""
        write_json(folder / _RESULT, result)
        write_json(folder / _REPORT, curves)


class Evaluate(Stage, Plan):
    """`result.json` and `report.json`; for each collaborator its outcome table, deployed policy and mistakes.

    The certify rows are read once, after everything is frozen: a look at them is written into the ledger first, and a
    later look at the same rows may spend less. Which collaborator is deployed is frozen before, too: with `choose` by
    the rows that choose its policy, so that the choice costs nothing of delta. One by certificates would halve it
    (Learn then Test, arXiv 2110.01052). Of what will be `updated`, one that cannot notice new
    classes comes last.
    """

    stage, version, unit = "evaluate", 5, "collaborators"
    reads, writes = ("features", "outcomes", "tuned"), EvaluatedArtefact

    certificate: CertificateConfig
    choose: bool = False
    updated: bool = False

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        choose, updated = run.collaborators == "auto", run.update is not None  # type: ignore[attr-defined]
        return super().of(run, choose=choose, updated=choose and updated, **more)

    def needs_cluster(self, features: FeaturesArtefact, **reads: Any) -> bool:
        """Not for a few rows."""
        return not features.has_few_rows

    def write(
        self, attempt: Attempt, features: FeaturesArtefact, outcomes: OutcomesArtefact, tuned: TunedArtefact
    ) -> None:
        """Certify and measure one collaborator after the other."""
        collaborators, reason = chosen(tuned, self.choose, updated=self.updated)
        write_json(attempt.folder / _CHOICE, {"deployed": collaborators[0], "reason": reason})
        result, report = {}, {}
        certifier = self.certifier(attempt, features)
        for number, name in enumerate(collaborators):
            attempt.bar.update(number, len(collaborators))
            given = (name, tuned, features, outcomes, self.certificate, certifier, attempt.folder / name)
            result[name], report[name] = run_remotely(measure, *given)
        EvaluatedArtefact.write_measured(attempt.folder, result, report)

    def certifier(self, attempt: Attempt, features: FeaturesArtefact) -> Certifier:
        """The test of a policy, once the look at the certify rows is in the ledger."""
        look = take_look(attempt.context.store, features.sequence.ledger_units, self.certificate, attempt.fingerprint)
        attempt.context.reporter.say(f"[bold]certify[/bold]   {look.sentence}")
        return partial(certify_policy, delta=look.spend)


class Uncertified(Evaluate):
    """The same for rows that are no random sample: what is deployed keeps above `threshold`, and nothing is promised.

    A certificate on such rows would be false: of `kcm label`'s table the rows that the small model answers are missing,
    and with them most of what may be lost.
    """

    threshold: float

    @classmethod
    def of(cls, run: Config, **more: Any) -> Self:
        """The stage with its part of a run's configuration."""
        return super().of(run, threshold=run.first_threshold, **more)  # type: ignore[attr-defined]

    def certifier(self, attempt: Attempt, features: FeaturesArtefact) -> Certifier:
        """No test, and no look."""
        attempt.context.reporter.say("[bold]certify[/bold]   nothing: `kcm update` certifies on traffic")
        return partial(uncertified_policy, threshold=self.threshold)


def measure(
    name: str,
    tuned: TunedArtefact,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    config: CertificateConfig,
    certifier: Certifier,
    folder: Path,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Certify and measure one collaborator: its part of the result and of the curves; the rest goes to a new folder."""
    found, names = tuned.load(name), features.names
    answers = tuned.answers(name, list(found.objectives))
    folder.mkdir()
    scored = scored_table(found, features, outcomes, prompted=answers, file=folder / OUTCOMES)
    policy, certificates = certifier(scored.rows("validate"), scored.rows("certify"), found.policy, config)
    policy.save(folder)
    write_json(folder / _KEPT_WRONG, kept_wrong(scored, policy, folder / OUTCOMES, features))
    result = result_of(scored, policy, certificates, found, names)
    if found.collaborator.base is not None:
        result["base"] = beside_base(found.collaborator, part_rows(features, outcomes, ["validate"]))
    return result, curves_of(scored, certificates[None], config)


def scored_table(
    found: Tuned,
    features: FeaturesArtefact,
    outcomes: OutcomesArtefact,
    splits: Sequence[Split] = SPLITS,
    prompted: Mapping[PromptMode, Path] | None = None,
    file: Path | None = None,
) -> ScoredTable:
    """The rows of `splits` as the search of a collaborator scored them, also under the modes of `prompted`.

    `file` receives the outcome table.
    """
    parts = scored_parts(found.collaborator, found.gate, features, outcomes, splits, prompted, left_out=found.left_out)
    kept = kept_parts(parts, file) if file else parts
    return ScoredTable.of(kept, found.gate, found.validate_scores, found.policy)


def beside_base(collaborator: Collaborator, parts: Iterable[PartRows]) -> dict[str, Any]:
    """How often the base alone is right on these rows, and how often the small side is, whose network adds to it."""
    right_2, num_rows = np.zeros(2), 0
    for part in parts:
        features_ND, label_N = matrix(part.rows["features"]), part.rows["label"].to_numpy()
        sides = (base_logits(collaborator, features_ND).cpu().numpy(), logits(collaborator, features_ND)[1])
        right_2 += [(logits_NC.argmax(1) == label_N).sum() for logits_NC in sides]
        num_rows += len(label_N)
    base, small = (right_2 / num_rows).tolist()
    return {"kind": collaborator.network.base, "accuracy": base, "small_accuracy": small}


def chosen(tuned: TunedArtefact, choose: bool, *, updated: bool = False) -> tuple[list[str], str]:
    """The collaborators, the one to deploy first, and why that one; without `choose` the first of the configuration.

    Of what will be `updated`, those come first that notice classes which are new. KCM, which explains itself, is
    deployed unless another one is better by more than a standard error.
    """
    names: list[str] = list(tuned.plan.config.collaborators)
    called = {str(name): words for name, words in NAMES.items()}
    if not choose or len(names) == 1:
        return names, f"{called[names[0]]} is deployed because the configuration names it first"
    reached = {name: tuned.objectives(name) for name in names}
    notices = {name: updated and tuned.load(name).novel is not None for name in names}
    ranked = sorted(names, key=lambda name: (notices[name], standing(reached[name], tuned.goal)), reverse=True)
    rivals = [name for name in ranked if notices[name] == notices[ranked[0]]]
    better: set[str] = set()
    if "kcm" in rivals[1:]:
        better = {name for name in rivals if is_better(reached[name], reached["kcm"], tuned.goal)}
        ranked.sort(key=lambda name: name not in (better or ("kcm",)))
        if not better:
            level = "none of the others is better by more than a standard error on the rows that choose"
            return ranked, f"{called['kcm']} is deployed because {level}; choosing so costs nothing of delta"
    best, other = ranked[0], "kcm" if better else ranked[1]
    deployed = f"{called[best]} is deployed because"
    if notices[best] and not notices[other]:
        return ranked, f"{deployed} it alone notices classes that are new, which an update has to learn"
    if notices[best] and not all(notices.values()):
        deployed += " of those that notice classes which are new, which an update has to learn, it comes first:"
    differs = (objective for objective in RANKINGS[tuned.goal] if reached[best][objective] != reached[other][objective])
    objective = RANKINGS[tuned.goal][0] if better else next(differs, None)
    if objective is None:
        return ranked, f"{deployed} it comes first: on the rows that choose, both are worth the same"
    accuracies = (f"{reached[name]['forecast_accuracy']:.1%}" for name in (best, other))
    shares = (forecast_words(CertificateForecast.of(reached[name]).summary) for name in (best, other))
    words = {
        "forecast_accuracy": "the certified cascade is forecast to be right on {} with it, against {} with {}",
        "forecast": "a certificate is forecast to leave {} of the inputs to it, against {} with {}",
        "calls_saved": "the forecasts are level ({} and {} with {}), and its search keeps more of these rows",
        "area": "the forecasts are level ({} and {} with {}), and the area under its frontier is larger",
    }[objective].format(*(accuracies if objective == "forecast_accuracy" else shares), called[other])
    return ranked, f"{deployed} on the rows that choose {words}; choosing so costs nothing of delta"


def take_look(store: ArtefactStore, units: Units, config: CertificateConfig, fingerprint: str) -> Look:
    """The look at a table with these units, in the ledger of the storage; repeated work is the same look.

    All collaborators share a look: one is deployed, which was chosen before, and not by its certificate.
    """
    return Ledger(store.ledger).look(units, delta=config.delta, digest=fingerprint, purpose="kcm run")


def result_of(
    scored: ScoredTable,
    policy: Policy,
    certificates: Mapping[str | None, Certificate],
    found: Tuned,
    names: Names,
) -> dict[str, Any]:
    """One collaborator's part of the result."""
    accuracy, baseline = found.state["accuracy"]["small"], found.state["baseline"]["small"]
    continual = summarise(accuracy, baseline) if None not in accuracy[-1] else {}
    validate, measured = scored.rows("validate"), scored.rows(scored.measured)
    saved_half, saved_one = calls_saved_at(validate, measured, 0.005), calls_saved_at(validate, measured, 0.01)
    overall, judged = _quality(scored, policy, None), scored.judged
    tasks = [task for task in names.tasks if scored.mask(scored.measured, task).any()]
    return {
        "measured_on": scored.measured,
        "overall": overall | {"forgetting_first": continual.get("forgetting_first")},
        "tasks": {task: _quality(scored, policy, task) for task in tasks},
        "labels": _labels(scored, policy, names.labels),
        "out_of_scope": _out_of_scope(scored, policy, found.collaborator.num_labels),
        "unknown_classes": _unknown_classes(found.novel, policy),
        "continual": continual,
        "accuracy_matrix": accuracy if continual else [],
        "routing": asdict(router_quality(measured))
        | {
            "calls_saved_at_half_a_point": {"calls_saved": saved_half[0], "loss": saved_half[1]},
            "calls_saved_at_one_point": {"calls_saved": saved_one[0], "loss": saved_one[1]},
            "expected_calibration_error": expected_calibration_error(judged.confidence, judged.judge_correct),
        },
        "policy": policy.model_dump(mode="json") | {"scope": policy.scope},
        "certificate": certificates_json(certificates),
        "forecast": found.forecast.summary,
        "answer_weight": found.state["learner"].get("answered", {}).get("weight"),
        "num_parameters": num_parameters(found.collaborator.judge),
        "num_networks": len(found.collaborator.merged().networks),
    } | _prompted(scored, found)


def _prompted(scored: ScoredTable, found: Tuned) -> dict[str, Any]:
    """Each prompt mode's objectives on validate, and its effect on the large model's answers to measured rows."""
    if not found.objectives:
        return {}
    table, modes = scored.table, dict[str, Any]()
    for mode, reached in found.objectives.items():
        rows = table.select((table.split == scored.measured) & (table.prompt == mode))
        effect = prompt_effect(rows.label, rows.large_label, rows.none_label, rows.large_error)
        assert effect is not None  # without test rows those that choose are measured
        figures = {name: figure for name, figure in reached.items() if name != "forecast_draws"}
        modes[mode] = figures | {"large_accuracy": float(rows.large_correct.mean())} | asdict(effect)
    return {"prompts": modes}


def _quality(scored: ScoredTable, policy: Policy, task: str | None) -> dict[str, Any]:
    table, rows = _as_asked(scored, policy, scored.mask(scored.measured, task))
    quality = route_quality(rows, policy.keep(rows.score, table.task), table.large_cost, table.small_cost)
    assert quality is not None  # tasks without measured rows were left out
    return _flat(quality)


def _as_asked(scored: ScoredTable, policy: Policy, mask: np.ndarray) -> tuple[MeasuredRows, ScoredOutcomes]:
    """Some rows, with the answers under the prompt that they are asked with.

    A task whose inputs are all escalated is asked under the task prompt, whatever the others are shown.
    """
    table, rows = scored.table.select(mask), scored.scored(mask)
    shown_N = np.array([policy.prompt_for(each) != "none" for each in table.task])
    return table, replace(rows, large_correct=np.where(shown_N, rows.large_correct, rows.baseline_correct))


def _labels(scored: ScoredTable, policy: Policy, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Metrics of the measured rows of each label, of many labels those whose wrong answers are kept most."""
    table, rows = _as_asked(scored, policy, scored.mask(scored.measured) & (scored.table.label < len(label_names)))
    found = label_qualities(rows, policy.keep(rows.score, table.task), table.label, table.small_label)

    def named(each: LabelQuality) -> dict[str, Any]:
        other = each.mistaken_for and {"label": label_names[each.mistaken_for[0]], "num_rows": each.mistaken_for[1]}
        return asdict(each) | {"label": label_names[each.label], "mistaken_for": other}

    return [named(each) for each in found[:MAX_LABELS]]


def _out_of_scope(scored: ScoredTable, policy: Policy, num_labels: int) -> dict[str, Any] | None:
    """Metrics of the measured rows whose right answer is none-of-these; None where there are none."""
    mask = scored.mask(scored.measured) & (scored.table.label >= num_labels)
    rows = scored.scored(mask)
    quality = out_of_scope_quality(rows, policy.keep(rows.score, rows.task))
    return None if quality is None else {f"out_of_scope_{name}": value for name, value in asdict(quality).items()}


def _unknown_classes(novel: NovelRows | None, policy: Policy) -> dict[str, float] | None:
    """How much is kept of rows whose class had never been learned, in the task that keeps most of them.

    Beside it stands how much is kept once it is noticed that there are new classes.
    """
    if novel is None:
        return None
    cut = policy.lowest_cut
    kept, later = float(novel.kept(cut)), float(novel.kept(cut, novel.farthest(cut)))
    return {"num_rows": len(novel.scores), "kept": kept, "kept_once_noticed": later, "assumed_share": novel.share}


def _flat(quality: RouteQuality) -> dict[str, Any]:
    """A RouteQuality under the names of `result.json`."""
    flat: dict[str, Any] = {"num_rows": quality.num_rows}
    for name, interval in {
        "small_accuracy": quality.small,
        "large_accuracy": quality.large,
        "cascade_accuracy": quality.cascade,
        "difference": quality.difference,
    }.items():
        flat |= {name: interval.estimate, f"{name}_interval": [interval.low, interval.high]}
    return flat | {name: getattr(quality, name) for name in ("call_rate", "calls_saved", "cost_saved")}


def curves_of(scored: ScoredTable, certificate: Certificate, config: CertificateConfig) -> dict[str, Any]:
    """The curves of the report, thinned: frontier and reliability as measured, and the certificate's own test."""
    frontier = Frontier.of(scored.rows(scored.measured)).curve()
    judged = scored.judged
    return {
        "frontier": {name: np.nan_to_num(column).tolist() for name, column in frontier.items()},
        "reliability": reliability(judged.confidence, judged.judge_correct).filled(),
        "certificate_path": certificate_curve(certificate, scored.rows("validate"), scored.rows("certify"), config),
    }
