"""One collaborator's part of `result.json`, `report.json` and `kept_wrong.json`, from its scored outcome table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds

from kcm.cascade.evaluation import (
    LabelQuality,
    RouteQuality,
    label_qualities,
    out_of_scope_quality,
    route_quality,
    router_quality,
)
from kcm.cascade.frontier import Frontier
from kcm.cascade.novelty import NovelRows
from kcm.cascade.outcome_rows import Split
from kcm.cascade.policy import Policy
from kcm.certification.certificate import Certificate, CertificateConfig, certificate_curve, certificates_json
from kcm.kan import num_parameters
from kcm.metrics.calibration import expected_calibration_error
from kcm.metrics.continual import summarise
from kcm.parquet import read_table
from pipelines.batch.outcome_table import ScoredTable
from pipelines.store.features import FeaturesArtefact
from pipelines.store.sequence import Names
from pipelines.training.artefacts import Tuned

MAX_LABELS = 100  # in the result
MAX_ROWS, MAX_CHARS = 50, 200  # rows that are kept and wrong, and characters of a text


def result_of(
    scored: ScoredTable,
    policy: Policy,
    certificates: Mapping[str | None, Certificate],
    candidate: Tuned,
    names: Names,
) -> dict[str, Any]:
    """One collaborator's part of the result."""
    accuracy, baseline = candidate.state["accuracy"]["small"], candidate.state["baseline"]["small"]
    continual = summarise(accuracy, baseline) if None not in accuracy[-1] else {}
    overall, judged = _quality(scored, policy, None), scored.judged
    tasks = [task for task in names.tasks if scored.mask(scored.measured, task).any()]
    return {
        "measured_on": scored.measured,
        "overall": overall | {"forgetting_first": continual.get("forgetting_first")},
        "tasks": {task: _quality(scored, policy, task) for task in tasks},
        "labels": _labels(scored, policy, names.labels),
        "out_of_scope": _out_of_scope(scored, policy, candidate.collaborator.num_labels),
        "unknown_classes": _unknown_classes(candidate.novel, policy),
        "continual": continual,
        "accuracy_matrix": accuracy if continual else [],
        "routing": asdict(router_quality(scored.rows(scored.measured)))
        | {"expected_calibration_error": expected_calibration_error(judged.confidence, judged.judge_correct)},
        "policy": policy.model_dump(mode="json") | {"scope": policy.scope},
        "certificate": certificates_json(certificates),
        "forecast": candidate.forecast.summary,
        "answer_weight": candidate.state["learner"].get("answered", {}).get("weight"),
        "form": candidate.collaborator.form,
        "num_parameters": num_parameters(candidate.collaborator.judge),
        "num_networks": len(candidate.collaborator.merged().networks),
    }


def _quality(scored: ScoredTable, policy: Policy, task: str | None) -> dict[str, Any]:
    mask = scored.mask(scored.measured, task)
    table, rows = scored.table.select(mask), scored.scored(mask)
    quality = route_quality(rows, policy.keep(rows.score, table.task), table.large_cost, table.small_cost)
    assert quality is not None  # tasks without measured rows were left out
    return _flat(quality)


def _labels(scored: ScoredTable, policy: Policy, label_names: Sequence[str]) -> list[dict[str, Any]]:
    """Metrics of the measured rows by label; at most `MAX_LABELS`, those with the most kept wrong answers."""
    mask = scored.mask(scored.measured) & (scored.table.label < len(label_names))
    table, rows = scored.table.select(mask), scored.scored(mask)
    qualities = label_qualities(rows, policy.keep(rows.score, table.task), table.label, table.small_label)

    def named(quality: LabelQuality) -> dict[str, Any]:
        other = quality.mistaken_for and {
            "label": label_names[quality.mistaken_for[0]],
            "num_rows": quality.mistaken_for[1],
        }
        return asdict(quality) | {"label": label_names[quality.label], "mistaken_for": other}

    return [named(quality) for quality in qualities[:MAX_LABELS]]


def _out_of_scope(scored: ScoredTable, policy: Policy, num_labels: int) -> dict[str, Any] | None:
    """Metrics of the measured rows whose right answer is none-of-these; None if there are none."""
    mask = scored.mask(scored.measured) & (scored.table.label >= num_labels)
    rows = scored.scored(mask)
    quality = out_of_scope_quality(rows, policy.keep(rows.score, rows.task))
    return None if quality is None else {f"out_of_scope_{name}": value for name, value in asdict(quality).items()}


def _unknown_classes(novel: NovelRows | None, policy: Policy) -> dict[str, float] | None:
    """The share of rows kept if their class was never learned, in the task that keeps most of them.

    `kept_once_noticed` is the share after novelty detection has noticed new classes.
    """
    if novel is None:
        return None
    cut = policy.lowest_cut
    first_share, later_share = float(novel.kept(cut)), float(novel.kept(cut, novel.farthest(cut)))
    return {
        "num_rows": len(novel.scores),
        "kept": first_share,
        "kept_once_noticed": later_share,
    }


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
    """The curves of the report, thinned: the frontier as measured, and the certificate's own test."""
    frontier = Frontier.of(scored.rows(scored.measured)).curve()
    return {
        "frontier": {name: np.nan_to_num(column).tolist() for name, column in frontier.items()},
        "certificate_path": certificate_curve(certificate, scored.rows("validate"), scored.rows("certify"), config),
    }


def kept_wrong(scored: ScoredTable, policy: Policy, outcomes: Path, features: FeaturesArtefact) -> dict[str, Any]:
    """The number of measured rows that are kept and wrong, and those among them with the highest gate scores.

    `outcomes` is the outcome table of `scored`. Each row has its id, the beginning of its text, its label, and the
    answers of both models; None means no answer, or an answer off the label list. Rows from the log have no text,
    because it may have to be forgotten.
    """
    measured_N = np.flatnonzero(scored.mask(scored.measured))
    rows = scored.table.select(measured_N)
    wrong_N = np.flatnonzero(policy.keep(rows.score, rows.task) & ~rows.small_correct)
    shown_N = wrong_N[np.argsort(-rows.score[wrong_N], kind="stable")[:MAX_ROWS]]
    ids = ds.dataset(outcomes).take(measured_N[shown_N], columns=["id"])["id"].to_pylist()
    texts = _texts(features, scored.measured, ids, set(rows.task[shown_N]))
    answers = (*features.names.answers, None)  # -1 is no answer
    return {
        "num_rows": len(wrong_N),
        "rows": [
            {
                "id": name,
                "text": texts.get(name, ""),
                "label": answers[rows.label[row]],
                "small": answers[rows.small_label[row]],
                "large": answers[rows.large_label[row]],
            }
            for name, row in zip(ids, shown_N, strict=True)
        ],
    }


def _texts(features: FeaturesArtefact, split: Split, ids: list[str], tasks: set[str]) -> dict[str, str]:
    """The beginnings of the texts of rows of a split, by id, read shard by shard."""
    sequence, texts_by_id = features.sequence, dict[str, str]()
    where = pc.field("id").isin(ids)
    for number, task in enumerate(features.names.tasks):
        if task not in tasks or task in sequence.grown_tasks:
            continue
        shards = sequence.shards(number)
        for shard in features.holding(number, features.stored_split(number, split)):
            rows = read_table(sequence.readable(shards[shard].name), columns=["id", "text"], where=where)
            texts = (" ".join(text[: 4 * MAX_CHARS].split()) for text in rows["text"].to_pylist())
            texts_by_id |= zip(rows["id"].to_pylist(), (_beginning(text) for text in texts), strict=True)
    return texts_by_id


def _beginning(text: str) -> str:
    return text if len(text) <= MAX_CHARS else text[: MAX_CHARS - 1] + "…"
