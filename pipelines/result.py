"""The result of a run as one dictionary, and its report."""

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
from kcm.report.page import ReportInputs, write_report
from kcm.report.summary import prices_of, recommendation
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.registry.champion import Pointer
from pipelines.registry.gates import PromotionGate
from pipelines.stages.evaluate import EvaluatedArtefact
from pipelines.tracking.tracking import registered_version


def collect(config: RunConfig, context: Context, artefacts: Mapping[str, Any]) -> dict[str, Any]:
    """The result of the finished stages; a whole run also has a report and a registered version."""
    result: dict[str, Any] = {"name": config.name}
    if "evaluate" in artefacts:
        evaluated: EvaluatedArtefact = artefacts["evaluate"]
        deployed = evaluated.deployed
        result |= _measured(config, evaluated, artefacts["outcomes"].usage)
        result["deployed"] = {"collaborator": deployed}
        result["large"] = artefacts["outcomes"].asked
        result["kept_wrong"] = evaluated.kept_wrong
        path, live = evaluated.curves[deployed]["certificate_path"], not config.large.is_recorded
        result["recommendation"] = recommendation(result, path, live=live)
    result |= {
        "seconds": context.seconds,
        "cached": context.cached,
        "bad_rows": artefacts["tasks"].summary.num_bad,
        "artefacts": {stage: artefact.where for stage, artefact in artefacts.items()},
    }
    if "register" not in artefacts:
        return result
    result["promotion"] = context.promotion
    if tracking := context.tracking:
        model = config.name
        current = Pointer(context.store.control, config.name).current()
        result["mlflow"] = {
            "tracking_uri": redacted(tracking.uri),
            "run_id": tracking.run_id,
            "model": model,
            "version": registered_version(tracking.uri, model, artefacts["register"].fingerprint),
            "champion": current.champion.number if current else None,
        }
    report = context.run_folder / "report.html"
    result["report"] = context.store.storage.where(report)
    lineage = {stage: artefact.fingerprint for stage, artefact in artefacts.items()}
    _write_report(report, config, artefacts["evaluate"], result, lineage=lineage, trials=artefacts["tune"].trials)
    if tracking:
        tracking.log(_headline(config, result), report)
        matrices: dict[str, Any] = {name: result[name]["accuracy_matrix"] for name in config.collaborators}
        if all(matrices.values()):  # None without test rows
            tracking.log_learning(matrices, list(artefacts["tasks"].names.tasks))
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
    """The report of a challenger, like a run's, with its promotion gates and without trials."""
    result = {"name": version} | _measured(config, evaluated, usage)
    verdicts = {gate.name: {"verdict": gate.verdict, "reason": gate.reason} for gate in gates}
    _write_report(path, config, evaluated, result, lineage=dict(lineage), trials=[], gates=verdicts)


def _measured(config: RunConfig, evaluated: EvaluatedArtefact, usage: Mapping[str, Any]) -> dict[str, Any]:
    """The measurements of each collaborator; certificate and prices of the deployed one."""
    result, costs = evaluated.result, prices(config.costs, usage)
    certificate = result[evaluated.deployed]["certificate"] | {"asked_delta": config.certificate.delta}
    notes = [evaluated.better_control] if evaluated.better_control else []
    return result | {"certificate": certificate, "costs": costs.model_dump() if costs else None, "notes": notes}


def _write_report(
    path: Path, config: RunConfig, evaluated: EvaluatedArtefact, result: dict[str, Any], **sections: Any
) -> None:
    curves, memory_gib = evaluated.curves, psutil.virtual_memory().total / 2**30
    inputs = ReportInputs(
        result=result,
        frontiers={name: curve["frontier"] for name, curve in curves.items()},
        certificate_path=curves[evaluated.deployed]["certificate_path"],
        config_yaml=yaml.safe_dump(redacted_values(config.model_dump(mode="json")), sort_keys=False),
        machine=f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB",
        **sections,
    )
    write_report(inputs, path)


_CERTIFICATE = ("epsilon", "delta", "bound", "valid", "call_rate", "num_rows", "num_units", "fewest_units")


def _headline(config: RunConfig, result: Mapping[str, Any]) -> dict[str, float | None]:
    """Every collaborator's figures over all tasks, its savings in money if known, and its certificate."""
    figures: dict[str, float | None] = {}
    for name in config.collaborators:
        overall = result[name]["overall"]
        figures |= {f"{name}/{metric}": value for metric, value in overall.items() if not isinstance(value, list)}
        if priced := prices_of(result):
            figures[f"{name}/saved_per_1000"] = priced.saved_per_1000(overall["calls_saved"])
        promised = result[name]["certificate"]
        figures |= {f"{name}/certificate_{key}": promised[key] for key in _CERTIFICATE}
    return figures
