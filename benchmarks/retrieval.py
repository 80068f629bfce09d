"""Captions searched by pictures and pictures by captions, as a cascade: `python benchmarks/modalities.py retrieval`.

The small model ranks a gallery by its log-odds of a match and the cosine of its dual encoder; where its judge is not
sure of the first item, the large model's dual encoder ranks the small one's first k again: by its own cosine (a hard
prompt), or by that and the small model's scores (a soft prompt). A query is right where a right item comes first, and
costs the pairs that the large model scores for it. So the gates, frontier and certificate of classification apply. The
answers of the small side are the places 1 to k of its ranking. All choices are made on validate queries.
Shapes: N rows that match, Q queries, G items of a gallery, K = k, D dimensions of a dual encoder.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
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
from kcm.cascade.gate_kinds import GateRows
from kcm.cascade.policy import Decision, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.scores import form_named
from kcm.cascade.search import find_policy
from kcm.cascade.table import SPLITS, Split
from kcm.certification.certificate import certificates_json, certify_policy
from kcm.certification.forecast import forecast_certificate
from kcm.certification.ledger import question_delta
from kcm.collaborator.collaborator import Collaborator
from kcm.encoders import EncoderConfig
from kcm.encoders.dual.image_text import pair_features
from kcm.inputs.content import contents
from kcm.metrics.calibration import fit_temperature
from kcm.metrics.intervals import paired_difference
from kcm.tasks.readers.pairs import MATCH, NO_MATCH
from pipelines.config import RunConfig
from pipelines.run import SEARCH, run_context
from pipelines.stages.stage import run_stages

TOP_K = (10, 20, 40)
MAX_SHARE = 0.5  # of large-only's pairs, within which R@1 is made highest
PICTURES_AT_ONCE = 32  # all pairs at once would not fit in memory

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
    """Scores of Q queries over one gallery, [Q, G] each, and which items are right; `group` [Q]: what they are of."""

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
    place: NDArray[np.int64]  # of the first right item in the small model's list; k where there is none
    small_right: Bools
    large_right: Bools  # the large model alone over the whole gallery
    listed_right: Bools  # the large model over the list
    num_items: NDArray[np.int64]  # of the gallery
    group: NDArray[np.object_]

    def scored(self, score: Floats) -> ScoredOutcomes:
        """As frontier and certificate read them."""
        return ScoredOutcomes(
            score=score,
            small_correct=self.small_right,
            large_correct=self.listed_right,
            large_none_correct=self.large_right,
            group=self.group,
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """A length of the list, the weight of the small model's scores beside the large one's, and a gate.

    `validate` are the queries on which they were fitted; a call scores `share` of the pairs that large-only scores.
    """

    k: int
    weight: float
    gate: Gate
    validate: ScoredOutcomes
    share: float

    def on(self, galleries: Sequence[Gallery], split: Split) -> tuple[Queries, ScoredOutcomes]:
        """The queries of another split."""
        found = queries(galleries, split, self.k, self.weight)
        return found, found.scored(self.gate.score(None, found.judge, found.small))


def retrieval(config: RunConfig, top_k: Sequence[int] = TOP_K) -> dict[str, Any]:
    """R@1 by collaborator, as certified and within half of the pairs; the stages up to the search run or are reused."""
    with run_context(config, stages := [stage.of(config) for stage in SEARCH]) as context:
        done = dict(run_stages(stages, context))
    features, tuned = done["features"], done["tune"]
    sequence = TaskSequence.load(features.sequence.folder)
    rows = matching_rows(sequence)
    inputs = contents(rows["text"].to_pylist(), rows["image"].to_pylist())

    def vectors(encoder: EncoderConfig) -> Vectors:
        return Vectors(*(encoder.of_part(part).build(config.assets_path).encode(inputs) for part in ("image", "text")))

    small = vectors(features.sequence.with_head(config.encoder))
    large = vectors(features.sequence.large_with_head(config.large).backbone)
    return {
        name: measured(galleries(rows, small, large, tuned.load(name).collaborator, sequence), config, top_k)
        for name in config.trained
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
    found = []
    for task in dict.fromkeys(task_N):
        for split in SPLITS:
            picture_U = np.flatnonzero((task_N == task) & (split_N == split))
            _, first_C, number_U = np.unique(caption_N[picture_U], return_index=True, return_inverse=True)
            text_C = picture_U[first_C]
            judge_UC, small_UC = match_scores(collaborator, small.images[picture_U], small.texts[text_C], *sides)
            scores = small.cosines(picture_U, text_C), judge_UC, small_UC, large.cosines(picture_U, text_C)
            right_UC = number_U[:, None] == np.arange(len(text_C))
            found.append(Gallery(split, *scores, right_UC, group_N[picture_U]))
            found.append(Gallery(split, *(each.T for each in (*scores, right_UC)), group_N[text_C]))
    validate = [gallery for gallery in found if gallery.split == "validate"]
    weights = [
        fit_weight([(each.cosine, getattr(each, network), each.relevant) for each in validate])
        for network in ("judge", "small")
    ]
    return [
        replace(
            each,
            judge=fused(each.cosine, each.judge, weights[0]),
            small=fused(each.cosine, each.small, weights[1]),
        )
        for each in found
    ]


def match_scores(
    collaborator: Collaborator, images_UD: NDArray[np.float32], texts_CD: NDArray[np.float32], match: int, no_match: int
) -> tuple[Floats, Floats]:
    """Log-odds of a match by judge and small model for every picture and caption, [U, C] each."""
    parts = []
    for start in range(0, len(images_UD), PICTURES_AT_ONCE):
        block_BD = images_UD[start : start + PICTURES_AT_ONCE]
        pairs = np.repeat(block_BD, len(texts_CD), axis=0), np.tile(texts_CD, (len(block_BD), 1))
        parts.append([each[:, match] - each[:, no_match] for each in logits(collaborator, pair_features(*pairs))])
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
            usable.append([each[told_Q] for each in (*scores, right_QK)])
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
    return [np.take_along_axis(each, top_QK, 1) for each in columns]


def queries(found: Sequence[Gallery], split: Split, k: int, weight: float) -> Queries:
    """The queries of a split with lists of k items; under the large model the small one's scores have this weight."""
    parts = []
    for gallery in (gallery for gallery in found if gallery.split == split):
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
    best_right_Q, best_other_Q = (np.where(each, scores_QK, -np.inf).max(1) for each in (right_QK, ~right_QK))
    return np.asarray(best_right_Q > best_other_Q)


def candidates(found: Sequence[Gallery], config: RunConfig, top_k: Sequence[int]) -> Iterator[Candidate]:
    """Every length of the list, hard and soft, with every gate of the configuration, fitted on validate queries."""
    for k in top_k:
        validate = [listed(gallery, k) for gallery in found if gallery.split == "validate"]
        soft = fit_weight([(large_QK, small_QK, right_QK) for _, small_QK, large_QK, right_QK in validate])
        for weight in (0.0, soft):
            asked = queries(found, "validate", k, weight)
            elsewhere = (0, 0), (0, 1)  # no answer of the small side
            temperature = fit_temperature(np.pad(asked.judge, elsewhere, constant_values=-np.inf), asked.place)
            for name in config.tune.gates:
                rows = GateRows(
                    inputs=tempered(None, asked.judge, asked.small, temperature),
                    small_correct=asked.small_right,
                    large_correct=asked.listed_right,
                    group=asked.group,
                    seed=config.seed,
                )
                fitted = form_named(name).fit(rows)
                share = k * len(asked.place) / asked.num_items.sum()
                yield Candidate(k, weight, Gate(name, temperature, fitted.head), asked.scored(fitted.scores), share)


def measured(found: Sequence[Gallery], config: RunConfig, top_k: Sequence[int]) -> dict[str, Any]:
    """The test queries by the certified policy that keeps most, and by the best that scores half of the pairs."""
    tried = list(candidates(found, config, top_k))
    delta = question_delta(config.certificate.delta, 1)  # the search ends before matching is certified on the same rows
    best, searched = cheapest(tried, len(tried[0].on(found, "certify")[1]), config, delta)
    policy, certificates = certify_policy(
        best.validate, best.on(found, "certify")[1], searched, config.certificate, delta=delta
    )
    bounded, decision = within_share(tried)
    return {
        "certified": figures(best, found, policy.decision) | {"certificate": certificates_json(certificates)},
        "within_share": figures(bounded, found, decision),
    }


def cheapest(tried: Sequence[Candidate], num_certify: int, config: RunConfig, delta: float) -> tuple[Candidate, Policy]:
    """The candidate with the highest expected certified keep rate, with the policy to certify."""

    def standing(candidate: Candidate) -> tuple[tuple[float, ...], Policy]:
        max_loss = config.tune.allowed_loss(config.certificate.epsilon)
        search = partial(find_policy, gate=candidate.gate, scope="global", max_loss=max_loss)
        result = search(candidate.validate)
        forecast = forecast_certificate(search, candidate.validate, num_certify, config.certificate, delta)
        return (forecast.keep_rate, result.calls_saved, result.area), result.policy

    _, policy, candidate = max(((*standing(each), each) for each in tried), key=lambda item: item[0])
    return candidate, policy


def within_share(tried: Sequence[Candidate]) -> tuple[Candidate, Decision]:
    """The candidate and threshold with the highest R@1 among those that score at most half of large-only's pairs.

    Of equal ones the one that scores fewer. To escalate all is large-only itself, which scores every pair.
    """
    options = []
    for candidate in tried:
        frontier = Frontier.of(candidate.validate)
        share_K = frontier.call_rate * candidate.share
        for index in range(1, len(share_K)):
            if share_K[index] <= MAX_SHARE:
                standing = frontier.accuracy[index], -share_K[index]
                options.append((standing, candidate, float(frontier.thresholds[index])))
    _, candidate, threshold = max(options, key=lambda option: option[0])
    return candidate, Decision.of(threshold)


def figures(candidate: Candidate, found: Sequence[Gallery], decision: Decision) -> dict[str, Any]:
    """R@1 on test queries, and the share of large-only's pairs that it took; keeping nothing is large-only."""
    asked, rows = candidate.on(found, "test")
    kept_Q = decision.keep(rows.score)
    escalated_right_Q, cost_Q = asked.listed_right, np.full(len(kept_Q), candidate.k)
    if not kept_Q.any():
        escalated_right_Q, cost_Q = asked.large_right, asked.num_items
    cascade_Q = np.where(kept_Q, asked.small_right, escalated_right_Q)
    difference = paired_difference(cascade_Q, asked.large_right, asked.group)
    return {
        "num_queries": len(kept_Q),
        "choice": {"top_k": candidate.k, "weight": candidate.weight, "gate": candidate.gate.name},
        "decision": decision.model_dump(mode="json"),
        "escalated": float((~kept_Q).mean()),
        "pair_share": float(np.where(kept_Q, 0, cost_Q).sum() / asked.num_items.sum()),
        "small_recall_at_1": float(asked.small_right.mean()),
        "large_recall_at_1": float(asked.large_right.mean()),
        "cascade_recall_at_1": float(cascade_Q.mean()),
        "difference": difference and asdict(difference),
    }
