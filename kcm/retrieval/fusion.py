"""How much the small model's scores count beside the large one's, where the large model is told them.

Shapes: Q queries, K items of a candidate list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from kcm.retrieval.gallery import Gallery


def fit_weight(galleries: Sequence[Gallery], k: int) -> float:
    """Weight of the small model's standardised scores beside the large one's, at which right items are likeliest.

    By a conditional logit model (McFadden, 1974) of which of the first k items is right: P(item) is proportional to
    exp(a large + b small), the weight is b / a, at least 0. Its likelihood is smooth, where R@1 jumps with single
    queries. Queries without a right item among the k tell nothing; 0 where there are no others.
    """
    parts = [gallery.shown(k) for gallery in galleries]
    large_QK, small_QK, right_QK = (np.concatenate(part) for part in zip(*parts, strict=True))
    told_Q = right_QK.any(1)
    if not told_Q.any():
        return 0.0
    scores_2QK, right_QK = np.stack([large_QK[told_Q], small_QK[told_Q]]), right_QK[told_Q]

    def loss(slopes_2: NDArray[np.float64]) -> float:
        utility_QK = np.tensordot(slopes_2, scores_2QK, axes=1)
        likeliest_Q = logsumexp(np.where(right_QK, utility_QK, -np.inf), axis=1)
        return float((logsumexp(utility_QK, axis=1) - likeliest_Q).mean())

    large, small = minimize(loss, [1.0, 0.0], method="L-BFGS-B", bounds=[(1e-3, 1e2), (0.0, 1e2)]).x
    return float(small / large)
