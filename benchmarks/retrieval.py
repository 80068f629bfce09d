"""Captions searched by pictures and pictures by captions, as a cascade: `python benchmarks/modalities.py retrieval`.

The small model ranks a gallery by its log-odds of a match and the cosine of its dual encoder; where its judge is not
sure of the first item, the large model's dual encoder ranks the small one's first k again: by its own cosine (a hard
prompt), or by that and the small model's scores (a soft prompt). A query is right where a right item comes first, and
costs the pairs that the large model scores for it. So the gates and the frontier of classification apply. The
answers of the small side are the places 1 to k of its ranking. All choices are made on validate queries.
Shapes: N rows that match, Q queries, G items of a gallery, K = k, D dimensions of a dual encoder.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from benchmarks.sequences import TaskSequence
from kcm.bundle.runtime import logits
from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate, tempered
from kcm.cascade.gate_kinds import GateRows, form_named
from kcm.cascade.outcome_rows import SPLITS, ScoredOutcomes, Split
from kcm.cascade.policy import Decision
from kcm.collaborator.collaborator import Collaborator
from kcm.config import load_config
from kcm.encoders import EncoderConfig
from kcm.encoders.image_text import pair_features
from kcm.inputs.content import contents
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import paired_difference
from pipelines.config import RunConfig
from pipelines.run import SEARCH, run_context
from pipelines.stages.stage import run_stages

TOP_K = (10, 20, 40)
MAX_SHARE = 0.5  # of large-only's pairs, within which R@1 is made highest
MATCH, NO_MATCH = "match", "no match"
PICTURES_AT_ONCE = 32  # all pairs together would not fit in memory

Floats, Bools = NDArray[np.float64], NDArray[np.bool_]


class Vectors(NamedTuple):
    """Unit vectors of the rows by a dual encoder, float32 [N, D] each."""

    images: NDArray[np.float32]
    texts: NDArray[np.float32]

    def cosines(self, images: NDArray[np.intp], texts: NDArray[np.intp]) -> Floats:
        """Of some rows' pictures and others' captions."""
        return np.asarray(self.images[images] @ self.texts[texts].T, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Gallery:
    """Scores of Q queries over one gallery, [Q, G] each, and the right items; `group` [Q] is the sampling unit."""

    split: Split
    cosine: Floats
    judge: Floats
    small: Floats
    large: Floats
    relevant: Bools
    group: NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Queries:
    """The queries of a split with a list of k items: scores [Q, K], all else [Q]."""

    judge: Floats
    small: Floats
    place: NDArray[np.int64]  # position of the first right item in the small model's list; k without one
    small_right: Bools
    large_right: Bools  # the large model alone over the whole gallery
    listed_right: Bools  # the large model over the list
    num_items: NDArray[np.int64]  # size of the gallery
    group: NDArray[np.object_]

    def scored(self, score: Floats) -> ScoredOutcomes:
        """As frontier and certificate read them."""
        return ScoredOutcomes(
            score=score,
            small_correct=self.small_right,
            large_correct=self.listed_right,
            group=self.group,
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A list length, the weight of the small model's scores against the large model's, and a gate.

    `validate` are the queries on which they were fitted; a call scores `share` of the pairs that large-only scores.
    """

    k: int
    weight: float
    gate: Gate
    validate: ScoredOutcomes
    share: float

    def on(self, galleries: Sequence[Gallery], split: Split) -> tuple[Queries, ScoredOutcomes]:
        """The queries of another split."""
        rows = queries(galleries, split, self.k, self.weight)
        return rows, rows.scored(self.gate.score(None, rows.judge, rows.small))


def aligned(file: Path, overrides: Sequence[str]) -> RunConfig:
    """The configuration of a run whose towers the extension has aligned; pip has installed examples/extension."""
    options = (word for override in overrides for word in ("--set", override))
    subprocess.run([sys.executable, "-m", "kcm_extension.matching.align", file, *options], check=True)
    return load_config(RunConfig, file, overrides)


def retrieval(config: RunConfig, top_k: Sequence[int] = TOP_K) -> dict[str, Any]:
    """R@1 by collaborator within half of the pairs; the stages up to the search run or are reused."""
    with run_context(config, stages := [stage.of(config) for stage in SEARCH]) as context:
        artefacts = dict(run_stages(stages, context))
    features, tuned = artefacts["features"], artefacts["tune"]
    sequence = TaskSequence.load(features.sequence.folder)
    rows = matching_rows(sequence)
    inputs = contents(rows["text"].to_pylist(), rows["image"].to_pylist())

    def vectors(encoder: EncoderConfig) -> Vectors:
        return Vectors(
            *(encoder.with_settings(output=part).build(config.assets_path).encode(inputs) for part in ("image", "text"))
        )

    small = vectors(config.encoder)
    large = vectors(config.large.backbone)
    return {
        name: measured(galleries(rows, small, large, tuned.load(name).collaborator, sequence), config, top_k)
        for name in config.collaborators
    }


def matching_rows(sequence: TaskSequence) -> pa.Table:
    """The rows that match, of all splits but train, with the name of their task."""
    match = sequence.label_names.index(MATCH)
    parts = []
    for task in sequence.tasks:
        rows = task.rows
        rows = rows.filter(pc.and_(pc.equal(rows["label"], match), pc.not_equal(rows["split"], "train")))
        parts.append(rows.append_column("task", pa.array([task.name] * len(rows), pa.string())))
    return pa.concat_tables(parts)


def galleries(
    rows: pa.Table, small: Vectors, large: Vectors, collaborator: Collaborator, sequence: TaskSequence
) -> list[Gallery]:
    """Two for every task and split: its captions for its pictures, and its pictures for its captions.

    Networks that learn from some hundred pictures tell matches from others, and yet rank worse than the cosine that is
    among what they see. So both count; how much the networks do is fitted on validate queries.
    """
    task_N, split_N, group_N = (np.array(rows[name].to_pylist(), dtype=object) for name in ("task", "split", "group"))
    caption_N = np.array([text.casefold() for text in rows["text"].to_pylist()])
    sides = [sequence.label_names.index(label) for label in (MATCH, NO_MATCH)]
    gallery_list = []
    for task in dict.fromkeys(task_N):
        for split in SPLITS:
            picture_U = np.flatnonzero((task_N == task) & (split_N == split))
            _, first_C, number_U = np.unique(caption_N[picture_U], return_index=True, return_inverse=True)
            text_C = picture_U[first_C]
            judge_UC, small_UC = match_scores(collaborator, small.images[picture_U], small.texts[text_C], *sides)
            scores = small.cosines(picture_U, text_C), judge_UC, small_UC, large.cosines(picture_U, text_C)
            right_UC = number_U[:, None] == np.arange(len(text_C))
            gallery_list.append(Gallery(split, *scores, relevant=right_UC, group=group_N[picture_U]))
            transposed = (scores_UC.T for scores_UC in scores)
            gallery_list.append(Gallery(split, *transposed, relevant=right_UC.T, group=group_N[text_C]))
    validate = [gallery for gallery in gallery_list if gallery.split == "validate"]
    weights = [
        fit_weight([(gallery.cosine, getattr(gallery, network), gallery.relevant) for gallery in validate])
        for network in ("judge", "small")
    ]
    return [
        replace(
            gallery,
            judge=fused(gallery.cosine, gallery.judge, weights[0]),
            small=fused(gallery.cosine, gallery.small, weights[1]),
        )
        for gallery in gallery_list
    ]


def match_scores(
    collaborator: Collaborator, images_UD: NDArray[np.float32], texts_CD: NDArray[np.float32], match: int, no_match: int
) -> tuple[Floats, Floats]:
    """Log-odds of a match by judge and small model for every picture and caption, [U, C] each."""
    parts = []
    for start in range(0, len(images_UD), PICTURES_AT_ONCE):
        block_BD = images_UD[start : start + PICTURES_AT_ONCE]
        pairs = np.repeat(block_BD, len(texts_CD), axis=0), np.tile(texts_CD, (len(block_BD), 1))
        parts.append(
            [logits_PC[:, match] - logits_PC[:, no_match] for logits_PC in logits(collaborator, pair_features(*pairs))]
        )
    judge, small = (np.concatenate(side).reshape(len(images_UD), -1) for side in zip(*parts, strict=True))
    return judge, small


def standardised(scores_QK: Floats) -> Floats:
    """Zero mean and unit deviation within every query."""
    centred_QK = scores_QK - scores_QK.mean(1, keepdims=True)
    return np.asarray(centred_QK / np.maximum(centred_QK.std(1, keepdims=True), 1e-12))


def fused(first_QK: Floats, second_QK: Floats, weight: float) -> Floats:
    """The first ranker's standardised scores plus `weight` times the second's."""
    return standardised(first_QK) + weight * standardised(second_QK)


def fit_weight(rankers: Sequence[tuple[Floats, Floats, Bools]]) -> float:
    """The weight of the second of two rankers' scores that maximises the likelihood of the right items, [Q, K] each.

    A conditional logit model (McFadden, 1974) of the right item of a query: P(item) is proportional to exp(a first + b
    second), the weight is b / a, at least 0. Its likelihood is smooth, where R@1 jumps with single queries. Queries
    without a right item are left out; 0 where there are no others.
    """
    usable = []
    for first_QK, second_QK, right_QK in rankers:
        scores = standardised(first_QK), standardised(second_QK)
        if (told_Q := right_QK.any(1)).any():
            usable.append([score_QK[told_Q] for score_QK in (*scores, right_QK)])
    if not usable:
        return 0.0

    def loss(slopes_2: Floats) -> float:
        losses = []
        for first_QK, second_QK, right_QK in usable:
            utility_QK = slopes_2[0] * first_QK + slopes_2[1] * second_QK
            of_right_Q = logsumexp(np.where(right_QK, utility_QK, -np.inf), axis=1)
            losses.append(logsumexp(utility_QK, axis=1) - of_right_Q)
        return float(np.concatenate(losses).mean())

    first, second = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(1e-3, 1e2), (0.0, 1e2)]).x
    return float(second / first)


def listed(gallery: Gallery, k: int) -> list[NDArray[Any]]:
    """Scores of judge, small and large model for the small model's first k items, and which are right, [Q, K] each."""
    top_QK = np.argsort(-gallery.small, axis=1, kind="stable")[:, :k]
    columns = gallery.judge, gallery.small, gallery.large, gallery.relevant
    return [np.take_along_axis(column, top_QK, 1) for column in columns]


def queries(gallery_list: Sequence[Gallery], split: Split, k: int, weight: float) -> Queries:
    """The queries of a split with lists of k items; under the large model the small one's scores have this weight."""
    parts = []
    for gallery in (gallery for gallery in gallery_list if gallery.split == split):
        judge_QK, small_QK, large_QK, right_QK = listed(gallery, k)
        parts.append(
            (
                judge_QK,
                small_QK,
                np.where(right_QK.any(1), right_QK.argmax(1), k),
                first_is_right(gallery.small, gallery.relevant),
                first_is_right(gallery.large, gallery.relevant),
                first_is_right(fused(large_QK, small_QK, weight), right_QK),
                np.full(len(right_QK), gallery.relevant.shape[1]),
                gallery.group,
            )
        )
    return Queries(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def first_is_right(scores_QK: Floats, right_QK: Bools) -> Bools:
    """Whether a right item scores higher than all others, [Q]: who cannot tell items apart earns nothing by luck."""
    best_right_Q, best_other_Q = (
        np.where(is_right_QK, scores_QK, -np.inf).max(1) for is_right_QK in (right_QK, ~right_QK)
    )
    return np.asarray(best_right_Q > best_other_Q)


def candidates(gallery_list: Sequence[Gallery], config: RunConfig, top_k: Sequence[int]) -> Iterator[Candidate]:
    """Every length of the list, hard and soft, with every gate of the configuration, fitted on validate queries."""
    for k in top_k:
        validate = [listed(gallery, k) for gallery in gallery_list if gallery.split == "validate"]
        soft = fit_weight([(large_QK, small_QK, right_QK) for _, small_QK, large_QK, right_QK in validate])
        for weight in (0.0, soft):
            validate_queries = queries(gallery_list, "validate", k, weight)
            elsewhere = (0, 0), (0, 1)  # no answer of the small side
            temperature = fit_temperature(
                np.pad(validate_queries.judge, elsewhere, constant_values=-np.inf), validate_queries.place
            )
            for name in config.tune.gates:
                rows = GateRows(
                    inputs=tempered(None, validate_queries.judge, validate_queries.small, temperature),
                    small_correct=validate_queries.small_right,
                    large_correct=validate_queries.listed_right,
                    group=validate_queries.group,
                    seed=config.seed,
                )
                gate = form_named(name).fit(rows)
                share = k * len(validate_queries.place) / validate_queries.num_items.sum()
                yield Candidate(
                    k, weight, Gate(name, temperature, gate.head), validate_queries.scored(gate.scores), share
                )


def measured(gallery_list: Sequence[Gallery], config: RunConfig, top_k: Sequence[int]) -> dict[str, Any]:
    """The test queries by the most accurate policy that scores half of the pairs."""
    candidate, decision = within_share(list(candidates(gallery_list, config, top_k)))
    return figures(candidate, gallery_list, decision)


def within_share(candidate_list: Sequence[Candidate]) -> tuple[Candidate, Decision]:
    """The candidate and threshold with the highest R@1 among those that score at most half of large-only's pairs.

    Among equal candidates, the one that scores fewer pairs wins. Escalating all is large-only, which scores every pair.
    """
    options = []
    for candidate in candidate_list:
        frontier = Frontier.of(candidate.validate)
        share_K = frontier.call_rate * candidate.share
        for index in range(1, len(share_K)):
            if share_K[index] <= MAX_SHARE:
                standing_of_point = frontier.accuracy[index], -share_K[index]
                options.append((standing_of_point, candidate, float(frontier.thresholds[index])))
    _, candidate, threshold = max(options, key=lambda option: option[0])
    return candidate, Decision.of(threshold)


def figures(candidate: Candidate, gallery_list: Sequence[Gallery], decision: Decision) -> dict[str, Any]:
    """R@1 on test queries, and the share of large-only's pairs that it took; keeping nothing is large-only."""
    test_queries, rows = candidate.on(gallery_list, "test")
    kept_Q = decision.keep(rows.score)
    escalated_right_Q, cost_Q = test_queries.listed_right, np.full(len(kept_Q), candidate.k)
    if not kept_Q.any():
        escalated_right_Q, cost_Q = test_queries.large_right, test_queries.num_items
    cascade_Q = np.where(kept_Q, test_queries.small_right, escalated_right_Q)
    difference = paired_difference(cascade_Q, test_queries.large_right, test_queries.group)
    return {
        "num_queries": len(kept_Q),
        "choice": {"top_k": candidate.k, "weight": candidate.weight, "gate": candidate.gate.name},
        "decision": decision.model_dump(mode="json"),
        "escalated": float((~kept_Q).mean()),
        "pair_share": float(np.where(kept_Q, 0, cost_Q).sum() / test_queries.num_items.sum()),
        "small_recall_at_1": float(test_queries.small_right.mean()),
        "large_recall_at_1": float(test_queries.large_right.mean()),
        "cascade_recall_at_1": float(cascade_Q.mean()),
        "difference": difference and asdict(difference),
    }
