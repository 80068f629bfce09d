"""The rows that choose gate and policy, a gate fitted on them, and every row's score.

Validate rows choose. Without them, left-out train rows choose, by the collaborators' answers to these rows. Memory
holds a bounded sample, and scalars.

If there are more rows than the limit, temperature and head are fitted on units drawn by a hash. The other rows are new
to the head, so its scores for them are as honest as the out-of-fold scores of the sample.

Shapes: N rows of all, S of the sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
from torch import Tensor

from kcm.cascade.gate import FittedGate, Gate, GateName, fit_gate
from kcm.cascade.gate_kinds import form_named
from kcm.cascade.novelty import NovelRows, Novelty
from kcm.cascade.outcome_rows import OutcomeTable, ScoredOutcomes
from kcm.cascade.reference import Reference
from kcm.collaborator.collaborator import Collaborator
from kcm.collaborator.distill import DistillConfig
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.inputs.vectors import matrix
from kcm.learners.base import Batch, Learner
from kcm.learners.training.stream import large_distributions
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import Units
from pipelines.batch.outcome_table import LeftOut, OutcomePart, PartRows, drawn, part_rows
from pipelines.store.features import FeaturesArtefact, feature_matrix
from pipelines.store.outcomes import OutcomesArtefact
from pipelines.store.sequence import unit_names

MAX_FITTED_ROWS = 65_536
MAX_ROWS = 10_000  # left-out train rows of all tasks together: more tell a gate and a threshold little
FEWEST_CLASSES = 10  # of fewer, one left out says little of what else may come
WithoutOwnClass = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor] | None]


def fitted_on(
    parts: Callable[[], Iterable[OutcomePart]],
    num_rows: int,
    gate: GateName,
    *,
    num_labels: int,
    reference: Reference,
    seed: int,
    limit: int = MAX_FITTED_ROWS,
    without_own_class: WithoutOwnClass = lambda *rows: None,
    novelty: Novelty | None = None,
    novel_share: float = 0.0,
) -> tuple[Gate, ScoredOutcomes, NovelRows | None]:
    """The gate, the `num_rows` validate rows with the scores for the search, and the sample without its own classes.

    `parts` returns the rows; it is called twice if they are more than `limit`. The third result are the sample's rows
    as if the class of each had never been learned, from the logits of `without_own_class`; None without such logits.
    """
    share, reads_features = limit / num_rows, form_named(gate).reads_features
    scored: list[ScoredOutcomes] = []
    tables: list[OutcomeTable] = []
    features: list[np.ndarray] = []
    for part in parts():
        is_sampled_N = _sampled(part.table, share)
        tables.append(part.table if is_sampled_N.all() else part.table.select(is_sampled_N))
        scored.append(ScoredOutcomes.of(part.table, np.zeros(len(part.table))))
        if reads_features:
            features.append(part.features_ND[is_sampled_N])
    sample = OutcomeTable.joined(tables)
    fitted = fit_gate(
        gate,
        fit_temperature(sample.judge_logits, sample.label),
        sample,
        np.concatenate(features) if reads_features else None,
        num_labels=num_labels,
        reference=reference,
        novelty=novelty,
        seed=seed,
    )
    rows = ScoredOutcomes.joined(scored)
    rows = replace(rows, score=fitted.scores if share >= 1 else _scores(parts(), fitted, share))
    novel = _novel_rows(fitted.gate, sample, features, num_labels, without_own_class, novelty)
    return fitted.gate, rows, novel and replace(novel, share=novel_share)


def _novel_rows(
    gate: Gate,
    sample: OutcomeTable,
    features: Sequence[np.ndarray],
    num_labels: int,
    without_own_class: WithoutOwnClass,
    novelty: Novelty | None,
) -> NovelRows | None:
    """The sample's rows without their own classes; rows out of scope have no class."""
    known_N = sample.label < num_labels
    judge_MC, small_MC = (logits[known_N, :num_labels] for logits in (sample.judge_logits, sample.small_logits))
    label_M = sample.label[known_N]
    if len(np.unique(label_M)) < FEWEST_CLASSES:
        return None
    without_class = without_own_class(*(torch.from_numpy(logits) for logits in (judge_MC, small_MC, label_M)))
    if without_class is None:
        return None
    features_MD = np.concatenate(features)[known_N] if features else None
    judge_MC, small_MC = (logits.numpy() for logits in without_class)
    scores_M = gate.score(features_MD, judge_MC, small_MC)
    return NovelRows(scores_M, novelty.distances(judge_MC) if novelty else None)


def _scores(parts: Iterable[OutcomePart], fitted: FittedGate, share: float) -> np.ndarray:
    """The gate's score of every row, out-of-fold for the sample, [N]."""
    score_parts, used = [], 0
    for part in parts:
        is_sampled_N = _sampled(part.table, share)
        scores = part.scores(fitted.gate)
        scores[is_sampled_N] = fitted.scores[used : used + int(is_sampled_N.sum())]
        used += int(is_sampled_N.sum())
        score_parts.append(scores)
    return np.concatenate(score_parts)


def _sampled(table: OutcomeTable, share: float) -> np.ndarray:
    """Which rows are in the sample, [N]: whole units (a group, or a row without a group)."""
    return drawn(np.where(pd.isna(table.group), table.id, table.group), share)


def deciding_rows(features: FeaturesArtefact, outcomes: OutcomesArtefact) -> Iterator[PartRows]:
    """The rows that choose gate and policy: validate rows, and train rows of the tasks without validate rows.

    About `MAX_ROWS` train rows are drawn by whole units, and all train rows out of scope. The unit of a row is its
    group, or else all rows with the same features.
    """
    num_rows = sum(features.num_train_rows[number] for number in features.tasks_without_validate)
    for part in part_rows(features, outcomes, ("validate",)):
        if part.source == "train":
            label_N = part.rows["label"].to_numpy()
            drawn_N = (label_N >= 0) & drawn(_units(part.rows), MAX_ROWS / num_rows)
            part = part.filtered(drawn_N | (label_N == OUT_OF_SCOPE))
        yield part


def left_out_of(
    collaborator: Collaborator, learner: Learner, distill: DistillConfig, parts: Iterable[PartRows]
) -> LeftOut:
    """The logits, after training, of the labelled train rows of `deciding_rows`; there must be at least one."""
    ids, units, features_ND, labels, large = [], [], [], [], []
    for part in parts:
        if part.source != "train":
            continue
        labelled = part.filtered(part.rows["label"].to_numpy() >= 0)
        rows, answers = labelled.rows, labelled.answers
        ids += rows["id"].to_pylist()
        units.append(_units(rows))
        features_ND.append(feature_matrix(rows))
        labels.append(rows["label"].to_numpy())
        large.append(large_distributions(matrix(answers["large_probabilities"]), answers["large_label"].to_numpy()))
    batch = Batch(
        torch.from_numpy(np.concatenate(features_ND)),
        torch.from_numpy(np.concatenate(labels).astype(np.int64)),
        torch.from_numpy(np.concatenate(large)),
        torch.ones(len(ids)),
    ).to(next(collaborator.parameters()).device)
    judge_NC, small_NC = learner.left_out(collaborator, batch, Units(np.concatenate(units), len(ids)), distill)
    return LeftOut(pd.Index(ids, dtype=object), judge_NC.float().cpu().numpy(), small_NC.float().cpu().numpy())


def _units(rows: pa.Table) -> np.ndarray:
    """The name of every row's unit, [N]."""
    alone = [row.tobytes().hex() for row in feature_matrix(rows)]
    return np.array(unit_names(rows, alone), dtype=object)
