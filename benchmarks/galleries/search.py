"""The search for a retrieval policy: the number of reranked items, the prompt mode, gate and threshold.

The choice is made on validate queries, by the gates, frontier and certificates of all other tasks. Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.cascade.frontier import Frontier
from kcm.cascade.gate import Gate, GateName, fit_gate
from kcm.cascade.policy import Decision, Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.cascade.search import find_policy
from kcm.cascade.table import OutcomeTable, Split, concatenate
from kcm.certify.certificate import CertificateConfig, certified_keep_rate
from kcm.certify.ledger import look_delta
from kcm.config import Config
from kcm.errors import DataError
from kcm.large.prompting.prompts import PromptMode
from kcm.metrics.calibration import fit_temperature

from .fusion import fit_weight
from .gallery import Gallery


class RetrievalConfig(Config):
    """The search space on validate: items alone, or with the small model's scores."""

    top_k: tuple[int, ...] = Field((10, 20, 40), min_length=1, description="Lengths of the candidate list.")
    max_share: float = Field(
        0.5, gt=0, le=1, description="Share of large-only's pair scorings within which R@1 is made highest."
    )


@dataclass(frozen=True)
class Shortlist:
    """How an escalated query is answered."""

    top_k: int
    mode: PromptMode
    weight: float


@dataclass(frozen=True, eq=False)
class Candidate:
    """A choice with a gate, and the validate queries under it: what its frontier is made of.

    `share` is what a call scores of the pairs that large-only scores for the mean query.
    """

    choice: Shortlist
    gate: Gate
    rows: ScoredOutcomes
    share: float

    def score(self, table: OutcomeTable) -> ScoredOutcomes:
        """The queries of another split, as the gate scores them."""
        return ScoredOutcomes.of(table, self.gate.score(None, _places(table.judge_logits), _places(table.small_logits)))


def queries(galleries: Sequence[Gallery], split: Split, choice: Shortlist) -> OutcomeTable:
    """The queries of a split under the mode of a choice, in the order of the galleries."""
    tables = [
        gallery.outcomes(choice.mode, choice.top_k, choice.weight) for gallery in galleries if gallery.split == split
    ]
    return concatenate(tables).where(prompt=choice.mode)


def candidates(
    galleries: Sequence[Gallery], config: RetrievalConfig, gates: Sequence[GateName], seed: int
) -> list[Candidate]:
    """Every choice with every gate, on the validate galleries.

    Raises DataError where a list would be longer than the smallest gallery.
    """
    smallest = min(galleries, key=lambda gallery: gallery.relevant.shape[1])
    if max(config.top_k) > smallest.relevant.shape[1]:
        raise DataError(
            f"top_k = {max(config.top_k)}, but a gallery of task {smallest.task!r} has "
            f"{smallest.relevant.shape[1]} items in split {smallest.split}",
            where="retrieval.top_k",
            hint="Lower it, or give more rows",
        )
    return [
        candidate
        for choice in _choices([gallery for gallery in galleries if gallery.split == "validate"], config)
        for candidate in _gated(choice, queries(galleries, "validate", choice), galleries, gates, seed)
    ]


def cheapest(found: Sequence[Candidate], max_loss: float, certificate: CertificateConfig) -> tuple[Candidate, Policy]:
    """The candidate with the highest expected certified keep rate, with the policy to certify."""

    def standing(candidate: Candidate) -> tuple[tuple[float, float, float], Policy]:
        found = find_policy(candidate.rows, candidate.gate, "global", max_loss)
        policy = found.policy.model_copy(update={"prompt": candidate.choice.mode})
        keep_rate = certified_keep_rate(policy, candidate.rows, certificate, look_delta(certificate.delta, 1))
        return (keep_rate, found.calls_saved, found.area), policy

    best = max(((*standing(candidate), candidate) for candidate in found), key=lambda item: item[0])
    return best[2], best[1]


def within_share(found: Sequence[Candidate], max_share: float) -> tuple[Candidate, Decision]:
    """The candidate and threshold with the highest R@1 among those that score at most `max_share` of all pairs.

    Of equal ones the one that scores fewer. To escalate all is large-only itself, which scores every pair.
    """
    best: tuple[tuple[float, float], Candidate, float] | None = None
    for candidate in found:
        frontier = Frontier.of(candidate.rows)
        share_K = frontier.call_rate * candidate.share
        allowed = [index for index in range(1, len(share_K)) if share_K[index] <= max_share]
        index = max(allowed, key=lambda index: (frontier.accuracy[index], -share_K[index]))
        standing = (float(frontier.accuracy[index]), -float(share_K[index]))
        if best is None or standing > best[0]:
            best = (standing, candidate, float(frontier.thresholds[index]))
    assert best is not None  # there is at least one candidate, and to keep all scores nothing
    return best[1], Decision.of(best[2])


def _choices(validate: Sequence[Gallery], config: RetrievalConfig) -> Iterator[Shortlist]:
    for k in config.top_k:
        yield Shortlist(k, "hard", 0.0)
        yield Shortlist(k, "soft", fit_weight([gallery.shown(k) for gallery in validate]))


def _gated(
    choice: Shortlist, table: OutcomeTable, galleries: Sequence[Gallery], gates: Sequence[GateName], seed: int
) -> Iterator[Candidate]:
    temperature = fit_temperature(table.judge_logits, table.label)
    pairs = [gallery.relevant.shape for gallery in galleries if gallery.split == "validate"]
    share = choice.top_k * sum(rows for rows, _ in pairs) / sum(rows * items for rows, items in pairs)
    for name in dict.fromkeys(gates):
        fitted = fit_gate(name, temperature, table, None, num_labels=table.judge_logits.shape[1] - 1, seed=seed)
        yield Candidate(choice, fitted.gate, ScoredOutcomes.of(table, fitted.scores), share)


def _places(logits_QA: NDArray[np.float64]) -> NDArray[np.float64]:
    """The scores of the places, without `elsewhere`, which the small side cannot answer."""
    return logits_QA[:, :-1]
