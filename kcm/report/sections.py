"""The sections of the page: which figures and tables stand side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcm.report import figures, tables
from kcm.report.drawing.markup import Html, element, join
from kcm.report.text.formats import known
from kcm.report.text.reading import Numbers, certificate_of, collaborators, is_scored, task_names

Columns = Mapping[str, Sequence[float]]
_SHOWN_ABOVE = ("small_accuracy", "large_accuracy")


def outcomes(result: Numbers, frontiers: Mapping[str, Columns]) -> Html:
    """Accuracy and cost, over all thresholds and task by task; then the inputs that have none of the labels."""
    outside = {who: found for who, c in collaborators(result).items() if (found := c.get("out_of_scope"))}
    return join(
        _pair(figures.frontier(frontiers, result), figures.differences(result)),
        tables.outcome_table(result),
        tables.metric_table("Inputs that have none of the labels: only the large model can say so.", outside)
        if outside
        else None,
    )


def certificate(result: Numbers, path: Columns) -> Html:
    """What is promised, and the path that led there."""
    found = certificate_of(result)
    if not found:
        return element("p", "This run has no certificate.")
    return join(
        _pair(figures.certificate_path(path, found), figures.regret(path, found)),
        tables.certificate_table(found),
    )


def continual(result: Numbers) -> Html:
    """What was learned and forgotten; the matrices of both collaborators share their shades."""
    found, names = collaborators(result), task_names(result)
    matrices = {who: c["accuracy_matrix"] for who, c in found.items() if c.get("accuracy_matrix")}
    values = [value for matrix in matrices.values() for row in matrix for value in row if known(value)]
    low, high = min(values, default=0.0), max(values, default=1.0)
    measured = {who: c.get("continual") or {} for who, c in found.items()}
    return join(
        _pair(*(tables.accuracy_matrix(who, matrix, names, low, high) for who, matrix in matrices.items())),
        _pair(
            figures.forgetting(result, names), tables.metric_table("Metrics of continual learning, on test.", measured)
        ),
    )


def routing(result: Numbers, reliability: Mapping[str, Sequence[Numbers]]) -> Html:
    """Whether the gate ranks the inputs well, and whether its confidence means what it says."""
    measured = {}
    for who, c in collaborators(result).items():
        routing = {key: value for key, value in (c.get("routing") or {}).items() if key not in _SHOWN_ABOVE}
        measured[who] = {**routing, "num_parameters": c.get("num_parameters")}
    return join(
        _pair(
            figures.reliability(reliability),
            tables.metric_table("How well the gate ranks the inputs, on test.", measured),
        ),
        _prompts(result),
    )


def _prompts(result: Numbers) -> Html | None:
    """What prompts do to the large model's answers, where they were tried."""
    tried = {who: c["prompts"] for who, c in collaborators(result).items() if c.get("prompts")}
    return tables.metric_table("What prompts do to the large model's answers, on test.", tried) if tried else None


def tuning(result: Numbers, trials: Sequence[Numbers]) -> Html:
    """What was tried, what is deployed, and what would have been as good."""
    front = [trial for trial in trials if trial["pareto"] and is_scored(trial)]
    policies = {who: c.get("policy") or {} for who, c in collaborators(result).items()}
    return join(
        _pair(figures.trials(trials), tables.setting_table("What is deployed.", policies)),
        tables.pareto_table(front) if front else None,
    )


def provenance(result: Numbers, lineage: Mapping[str, str], config_yaml: str, machine: str) -> Html:
    """Where the figures come from, down to the fingerprints and the configuration."""
    mlflow = result.get("mlflow") or {}
    tracked = {
        "Machine": machine,
        "MLflow": mlflow.get("tracking_uri"),
        "MLflow run": mlflow.get("run_id"),
        "Registered model": mlflow.get("model"),
        "Version": mlflow.get("version"),
    }
    return join(
        tables.stage_table(result.get("seconds") or {}, result.get("cached") or {}, lineage),
        tables.facts(tracked),
        element("details", element("summary", "Configuration"), element("pre", element("code", config_yaml))),
    )


def _pair(*parts: Html) -> Html:
    return element("div", *parts, class_="pair")
