"""How unlike all known classes an input is: the distance of the judge's outputs to those of the nearest class.

It is measured in the metric of the regression's residuals, see `kcm.closed_form.residuals`, where the judge is one.
Shapes: N inputs, M rows whose own class was left out, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

MAX_NOVEL_KEPT = 0.1  # of rows whose own class was left out, once classes are noticed that are new


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the distance is computed from; `target_C` is 0 for labels without rows."""

    metric_CC: NDArray[np.float64]
    target_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    @classmethod
    def of(cls, learner_state: Mapping[str, Any]) -> Novelty | None:
        """From the residuals that a learner has kept; None where it has kept none."""
        residuals = learner_state.get("residuals")
        return cls(**{name: tensor.numpy() for name, tensor in residuals.items()}) if residuals else None

    def distances(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        """The distance of every input, [N]. A logit of -inf is of a class that is taken not to be known."""
        known_NC = np.isfinite(judge_logits_NC)
        residual_NC = np.where(known_NC, judge_logits_NC - self.offset_C, 0)
        pull_NC = residual_NC @ self.metric_CC
        corner_NC = self.target_C * (self.target_C * self.metric_CC.diagonal() - 2 * pull_NC)
        nearest_N = np.where(known_NC & (self.target_C > 0), corner_NC, np.inf).min(1)
        return np.asarray(np.sqrt(np.maximum((residual_NC * pull_NC).sum(1) + nearest_N, 0)))


@dataclass(frozen=True, eq=False)
class NovelRows:
    """Rows as if their own class had never been learned: gate scores [M], and distances [M] where they are known.

    `share` of the traffic is taken to be like them when a threshold is searched.
    """

    scores: NDArray[np.float64]
    distances: NDArray[np.float64] | None = None
    share: float = 0.0

    def kept(self, thresholds: ArrayLike, farthest: float | None = None) -> NDArray[np.float64]:
        """The share of the rows that is kept at each threshold, where all from a distance of `farthest` on escalate."""
        near_M = True if farthest is None or self.distances is None else self.distances < farthest
        below = np.searchsorted(np.sort(np.where(near_M, self.scores, -np.inf)), thresholds, side="right")
        return np.asarray(1 - below / len(self.scores))

    def farthest(self, threshold: float) -> float | None:
        """The distance from which on inputs have to escalate to keep no more than MAX_NOVEL_KEPT; None: none has to."""
        if self.distances is None:
            return None
        distances = np.sort(self.distances[self.scores > threshold])
        max_kept = int(MAX_NOVEL_KEPT * len(self.scores))
        return float(distances[max_kept]) if max_kept < len(distances) else None
