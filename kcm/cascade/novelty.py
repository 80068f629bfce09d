"""How unlike all known classes an input is: the distance of the judge's outputs to the outputs of the nearest class.

If the judge is a regression, the distance uses the metric of its residuals, see `kcm.closed_form.discriminant`.
Shapes: N inputs, M rows whose own class was left out, C labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kcm.cascade.thresholds import FAR
from kcm.errors import ConfigError

FAR_SHARE = 0.01  # of the left-out train rows, or validate rows, that lie beyond the reach
MAX_NOVEL_KEPT = 0.1  # most rows kept, of those whose own class was left out, once new classes are noticed


@dataclass(frozen=True, eq=False)
class Novelty:
    """What the distance is computed from; `target_C` is 0 for labels without rows."""

    metric_CC: NDArray[np.float64]
    target_C: NDArray[np.float64]
    offset_C: NDArray[np.float64]

    @classmethod
    def of(cls, learner_state: Mapping[str, Any]) -> Novelty | None:
        """From the residuals in a learner's state; None if it has none."""
        residuals = learner_state.get("residuals")
        return cls(**{name: tensor.numpy() for name, tensor in residuals.items()}) if residuals else None

    def distances(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        """The distance of every input, [N]. A logit of -inf marks a class to be treated as unknown."""
        known_NC = np.isfinite(judge_logits_NC)
        residual_NC = np.where(known_NC, judge_logits_NC - self.offset_C, 0)
        pull_NC = residual_NC @ self.metric_CC
        corner_NC = self.target_C * (self.target_C * self.metric_CC.diagonal() - 2 * pull_NC)
        nearest_N = np.where(known_NC & (self.target_C > 0), corner_NC, np.inf).min(1)
        return np.asarray(np.sqrt(np.maximum((residual_NC * pull_NC).sum(1) + nearest_N, 0)))


@dataclass(frozen=True, eq=False)
class Reach:
    """The distance rule of a policy: an input farther than `farthest` from all known classes always escalates."""

    novelty: Novelty
    farthest: float

    @classmethod
    def fit(cls, novelty: Novelty, judge_logits_NC: NDArray[np.float64]) -> Reach:
        """From the logits of rows that the judge has not learned: left-out train rows, or validate rows."""
        distances_N = novelty.distances(judge_logits_NC)
        return cls(novelty, float(np.quantile(distances_N, 1 - FAR_SHARE, method="higher")))

    @classmethod
    def of(cls, learner_state: Mapping[str, Any], farthest: float | None) -> Reach | None:
        """The rule of a policy; None without one. Raises ConfigError if the state cannot measure distances."""
        novelty = Novelty.of(learner_state)
        if farthest is not None and novelty is None:
            raise ConfigError("the policy escalates far inputs, but the learner measures no distance", where="farthest")
        return None if farthest is None or novelty is None else cls(novelty, farthest)

    def beyond(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Which inputs lie beyond the reach, [N]."""
        return np.asarray(self.novelty.distances(judge_logits_NC) > self.farthest)


@dataclass(frozen=True, eq=False)
class NovelRows:
    """Rows scored as if their own class had never been learned: gate scores [M], and distances [M] if known.

    The search for a threshold assumes that a `share` of the traffic is like these rows.
    """

    scores: NDArray[np.float64]
    distances: NDArray[np.float64] | None = None
    share: float = 0.0

    def kept(self, thresholds: ArrayLike, farthest: float | None = None) -> NDArray[np.float64]:
        """The share of the rows kept at each threshold, if all rows at a distance of `farthest` or more escalate."""
        near_M = True if farthest is None or self.distances is None else self.distances < farthest
        below = np.searchsorted(np.sort(np.where(near_M, self.scores, FAR)), np.maximum(thresholds, FAR), side="right")
        return np.asarray(1 - below / len(self.scores))

    def farthest(self, threshold: float) -> float | None:
        """The distance from which inputs must escalate so that at most MAX_NOVEL_KEPT are kept; None if none must."""
        if self.distances is None:
            return None
        distances = np.sort(self.distances[self.scores > threshold])
        max_kept = int(MAX_NOVEL_KEPT * len(self.scores))
        return float(distances[max_kept]) if max_kept < len(distances) else None
