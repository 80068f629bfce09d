"""Quality of a retrieval cascade on queries that it was not chosen on.

Shapes: Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.policy import Policy
from kcm.cascade.scored import ScoredOutcomes
from kcm.metrics.intervals import Interval, paired_difference

from .gallery import Gallery, recall_at
from .search import Candidate, queries

RECALLS = (1, 5, 10)


@dataclass(frozen=True, eq=False)
class Retrieved:
    """The test queries through a policy: who was kept, the ranks of first right items, and the pairs scored, [Q] each.

    `pairs` are what the large model scored for a query, `all_pairs` what large-only scores.
    """

    rows: ScoredOutcomes
    kept: NDArray[np.bool_]
    small: NDArray[np.int64]
    large: NDArray[np.int64]
    cascade: NDArray[np.int64]
    way: NDArray[np.object_]
    pairs: NDArray[np.float64]
    all_pairs: NDArray[np.float64]

    @classmethod
    def of(cls, galleries: Sequence[Gallery], candidate: Candidate, policy: Policy) -> Retrieved:
        """Send the test queries through `policy`, escalated ones answered as the candidate says."""
        choice = candidate.choice
        rows = candidate.score(queries(galleries, "test", choice))
        tests = [gallery for gallery in galleries if gallery.split == "test"]
        kept = policy.keep(rows.score)
        small = np.concatenate([gallery.small_ranks() for gallery in tests])
        large = np.concatenate([gallery.ranks("none", choice.top_k, 0.0) for gallery in tests])
        anew = np.concatenate([gallery.ranks(choice.mode, choice.top_k, choice.weight) for gallery in tests])
        all_pairs = np.concatenate([np.full(len(gallery.ids), float(gallery.relevant.shape[1])) for gallery in tests])
        if not kept.any():  # then the large model is used alone
            rows, anew = replace(rows, large_correct=rows.baseline_correct), large
        called = np.where(kept.any(), float(choice.top_k), all_pairs)
        return cls(
            rows=rows,
            kept=kept,
            small=small,
            large=large,
            cascade=np.where(kept, small, anew),
            way=np.concatenate([np.full(len(gallery.ids), gallery.way, dtype=object) for gallery in tests]),
            pairs=np.where(kept, 0.0, called),
            all_pairs=all_pairs,
        )

    @property
    def share(self) -> float:
        """Pairs that the large model scored, of those of large-only."""
        return float(self.pairs.sum() / self.all_pairs.sum())

    def difference(self) -> Interval | None:
        """R@1 of the cascade minus large-only's, with its paired 95% interval; queries of one group go together."""
        return paired_difference(self.cascade == 0, self.large == 0, self.rows.group)

    def recalls(self) -> dict[str, Any]:
        """R@K by way and overall: {way: {model: {K: share}}}."""
        ways = {"overall": np.ones(len(self.way), dtype=bool)} | {
            way: self.way == way for way in dict.fromkeys(self.way)
        }
        return {
            way: {
                model: {str(k): recall_at(getattr(self, model)[mask], k) for k in RECALLS}
                for model in ("small", "large", "cascade")
            }
            for way, mask in ways.items()
        }
