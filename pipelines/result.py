"""The result of a run as one dictionary, and the report that is drawn from it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psutil
import yaml

from kcm.costs import prices
from kcm.redact import redacted, redacted_values
from kcm.report.advice import recommendation
from kcm.report.page import ReportInputs, write_report
from kcm.report.summary import prices_of
from pipelines.config import OPERATIONAL, PLACES, RunConfig
from pipelines.context import Context
from pipelines.registry.champion import Pointer
from pipelines.registry.gates import PromotionGate
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.tracking.tracking import Tracking, registered_version


def collect(config: RunConfig, context: Context, done: Mapping[str, Any]) -> dict[str, Any]:
    """The result of the stages in `done`; a whole run also has its report and registered version."""
    result: dict[str, Any] = {"name": config.name}
    if "evaluate" in done:
        evaluated: EvaluatedArtefact = done["evaluate"]
        deployed = evaluated.deployed
        result |= _measured(config, evaluated, done["outcomes"].usage)
        result["deployed"] = {"collaborator": deployed, "reason": evaluated.choice}
        result["large"] = done["outcomes"].asked
        if "prompts" in done:
            result["large"]["prompts"] = done["prompts"].asked(deployed)
        result["kept_wrong"] = evaluated.kept_wrong
        result["recommendation"] = recommendation(result, evaluated.curves[deployed]["certificate_path"])
    result |= {
        "seconds": context.seconds,
        "cached": context.cached,
        "bad_rows": done["tasks"].summary.num_bad,
        "overlapping_rows": done["tasks"].summary.num_overlapping,
        "artefacts": {stage: artefact.where for stage, artefact in done.items()},
    }
    if "register" not in done:
        return result
    result["promotion"] = context.promotion
    if tracking := context.tracking:
        model = config.name
        current = Pointer(context.store.control, config.name).current()
        result["mlflow"] = {
            "tracking_uri": redacted(tracking.uri),
            "run_id": tracking.run_id,
            "model": model,
            "version": registered_version(tracking.uri, model, done["register"].fingerprint),
            "champion": current.champion.number if current else None,
        }
    report = context.run_folder / "report.html"
    result["report"] = context.store.storage.where(report)
    lineage = {stage: artefact.fingerprint for stage, artefact in done.items()}
    _write_report(report, config, done["evaluate"], result, lineage=lineage, trials=done["tune"].trials)
    if tracking:
        tracking.log(_params(config), _headline(config, result), report)
        _log_provenance(config, done, result, tracking)
    return result


def write_challenger_report(
    config: RunConfig,
    evaluated: EvaluatedArtefact,
    gates: Iterable[PromotionGate],
    version: str,
    lineage: Mapping[str, str],
    usage: Mapping[str, Any],
    path: Path,
) -> None:
    """The report of a challenger as a run's, with what its promotion gates said; it was searched by no trials."""
    result = {"name": version} | _measured(config, evaluated, usage)
    verdicts = {gate.name: {"verdict": gate.verdict, "reason": gate.reason} for gate in gates}
    _write_report(path, config, evaluated, result, lineage=dict(lineage), trials=[], gates=verdicts)


def _measured(config: RunConfig, evaluated: EvaluatedArtefact, usage: Mapping[str, Any]) -> dict[str, Any]:
    """What was measured of each collaborator, and of what is deployed the certificate and the prices."""
    measured, costs = evaluated.result, prices(config.costs, usage)
    certificate = measured[evaluated.deployed]["certificate"] | {"asked_delta": config.certificate.delta}
    return measured | {"certificate": certificate, "costs": costs.model_dump() if costs else None}


def _write_report(
    path: Path, config: RunConfig, evaluated: EvaluatedArtefact, result: dict[str, Any], **more: Any
) -> None:
    curves, memory_gib = evaluated.curves, psutil.virtual_memory().total / 2**30
    inputs = ReportInputs(
        result=result,
        frontiers={name: curve["frontier"] for name, curve in curves.items()},
        reliability={name: curve["reliability"] for name, curve in curves.items()},
        certificate_path=curves[evaluated.deployed]["certificate_path"],
        config_yaml=yaml.safe_dump(redacted_values(config.model_dump(mode="json")), sort_keys=False),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        **more,
    )
    write_report(inputs, path)


def _log_provenance(config: RunConfig, done: Mapping[str, Any], result: Mapping[str, Any], tracking: Tracking) -> None:
    """Record how accuracy went over tasks, which rows were learned, and which artefacts the bundle was made of."""
    rows = done["tasks"]
    learned: dict[str, Any] = {name: result[name]["accuracy_matrix"] for name in config.trained}
    if all(learned.values()):  # there are test rows
        tracking.log_learning(learned, list(rows.names.tasks))
    tracking.log_rows(rows.name, rows.fingerprint, rows.where, rows.summary.rows)
    tracking.log_lineage({stage: artefact.fingerprint for stage, artefact in done.items()})


def _params(config: RunConfig) -> dict[str, Any]:
    """The configuration by section, without what changes no result."""
    return redacted_values(config.model_dump(mode="json", exclude={*OPERATIONAL, *PLACES}))


_CERTIFICATE = ("epsilon", "delta", "bound", "valid", "call_rate", "num_rows", "num_units", "fewest_units")


def _headline(config: RunConfig, result: Mapping[str, Any]) -> dict[str, float | None]:
    """Every collaborator's figures over all tasks, what it saves in money where known, and its certificate."""
    figures: dict[str, float | None] = {}
    for name in config.trained:
        overall = result[name]["overall"]
        figures |= {f"{name}/{metric}": value for metric, value in overall.items() if not isinstance(value, list)}
        if found := prices_of(result):
            figures[f"{name}/saved_per_1000"] = found.saved_per_1000(overall["calls_saved"])
        promised = result[name]["certificate"]
        figures |= {f"{name}/certificate_{key}": promised[key] for key in _CERTIFICATE}
    return figures
