"""Confidence scores of the judge, from its logits alone, in float64; larger is surer.

Scores keep an order of confidences that probabilities lose: in float32 the largest probability is exactly 1 from a
logit gap of 17 on. A row that only one label can answer has an infinite score. Shapes: N rows, C labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from kcm.cascade.gate_kinds import FittedHead, GateForm, GateHead, GateInputs, GateRows

# Thresholds lie between scores and must be finite, so an infinitely sure row gets this score instead.
SCORE_LIMIT = 1e9


def confidence(judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Log-odds of the winner, z_max - logsumexp(the others): the largest probability, without its saturation."""
    return np.asarray(-np.logaddexp.reduce(_sorted_gaps(judge_logits_NC)[:, 1:], axis=1))


def margin(judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance z_1 - z_2 between the two largest logits."""
    gap_NC = _sorted_gaps(judge_logits_NC)
    return -gap_NC[:, 1] if gap_NC.shape[1] > 1 else np.full(len(gap_NC), np.inf)


def entropy(judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Negative entropy -H(p) of the judge's distribution, in nats."""
    gap_NC = _sorted_gaps(judge_logits_NC)
    weight_NC = np.exp(gap_NC)
    others_N = weight_NC[:, 1:].sum(1)
    mean_gap_N = (weight_NC * np.where(weight_NC > 0, gap_NC, 0)).sum(1) / (1 + others_N)
    return np.asarray(mean_gap_N - np.log1p(others_N))


SCORES: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "confidence": confidence,
    "margin": margin,
    "entropy": entropy,
}


class GateScore(GateForm):
    """Turns the judge's logits into one score per row; there is nothing to fit."""

    reads_features: ClassVar[bool] = False

    @abstractmethod
    def score(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score [N]; larger is surer."""

    def unfitted(self) -> GateHead:
        """The head that computes this score."""
        return _Plain(self)

    def restored(self, tensors: Mapping[str, Tensor]) -> GateHead:
        """The same head for any tensors."""
        return _Plain(self)

    def fit(self, rows: GateRows) -> FittedHead:
        """The head, and its scores for these rows; nothing is fitted."""
        head = _Plain(self)
        return FittedHead(head, head.score(rows.inputs))


@dataclass(frozen=True)
class _Plain:
    """Wraps a score as a head."""

    form: GateScore

    def score(self, inputs: GateInputs) -> NDArray[np.float64]:
        """The score, finite."""
        return np.asarray(np.clip(self.form.score(inputs.judge_logits_NC), -SCORE_LIMIT, SCORE_LIMIT))

    def tensors(self) -> dict[str, Tensor]:
        """Nothing."""
        return {}


class Confidence(GateScore):
    """The gate `confidence`."""

    def score(self, judge_logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
        return confidence(judge_logits_NC)


def form_named(name: str) -> GateForm:
    """The gate form called `name`, found by `kcm.components`. Raises ConfigError if there is none."""
    form = GateForm.family.find(name)(**{GateForm.family.tag: name})
    assert isinstance(form, GateForm)
    return form


def _sorted_gaps(logits_NC: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logits relative to the row's largest, descending: 0 first."""
    ordered_NC = -np.sort(-logits_NC, axis=1)
    return np.asarray(ordered_NC - ordered_NC[:, :1])
