"""A gate score: how far the winner is ahead of the field, rather than of the second alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kcm.cascade.gate_kinds import GateScore


class Lead(GateScore):
    """The largest logit above the mean of the others; infinite where there is no other."""

    def score(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        best_N, others = judge_logits_NC.max(axis=1), judge_logits_NC.shape[1] - 1
        if not others:
            return np.full(len(best_N), np.inf)
        return np.asarray(best_N - (judge_logits_NC.sum(axis=1) - best_N) / others)
