"""The kinds of gate: a score of the judge's logits alone, or a head that is fitted on validate rows.

A form is a component, chosen by its name. It makes a head, and the head scores rows.
Shapes: N rows, D features, C labels.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from kcm.cascade.reference import Reference
from kcm.components import FAMILIES, Component, Family
from kcm.errors import ConfigError


@dataclass(frozen=True, eq=False)
class GateInputs:
    """The inputs of a gate for N rows; logits are over the labels of the small side, divided by the temperature."""

    judge_logits_NC: NDArray[np.float64]
    small_logits_NC: NDArray[np.float64]
    features_ND: NDArray[np.float32] | NDArray[np.float64] | None = None


class GateHead(Protocol):
    """Scores rows; made by a form."""

    def score(self, inputs: GateInputs) -> NDArray[np.float64]:
        """Gate score [N]; larger is surer."""
        ...

    def tensors(self) -> dict[str, Tensor]:
        """The fitted values by name; empty if there are none."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class GateRows:
    """Validate rows to fit a head on: its inputs, and the correctness of both models; every column [N].

    Rows of one `group` were drawn together. `reference` is what the small side remembers of the rows it learned.
    """

    inputs: GateInputs
    small_correct: NDArray[np.bool_]
    large_correct: NDArray[np.bool_]
    group: NDArray[np.object_] | None = None
    reference: Reference = field(default_factory=Reference.nothing)
    seed: int = 0


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head, and its out-of-fold scores [N] for the rows that it was fitted on, as a search needs them."""

    head: GateHead
    scores: NDArray[np.float64]


class GateForm(Component):
    """A way to compute a gate score; chosen by its name alone."""

    family: ClassVar[Family] = FAMILIES["gate score"]
    reads_features: ClassVar[bool] = True  # fitting and scoring need the encoder's features

    gate: str = Field("", description="Chooses this gate score.")

    def unfitted(self) -> GateHead:
        """The head of a form that has nothing to fit. Raises ConfigError for a form that has."""
        raise ConfigError(f"the gate {self.gate!r} needs its fitted head", where="gate", hint="Fit one on validate")

    @abstractmethod
    def restored(self, tensors: Mapping[str, Tensor]) -> GateHead:
        """The head from its tensors. Raises RuntimeError if they belong to another form."""

    @abstractmethod
    def fit(self, rows: GateRows) -> FittedHead:
        """A head for these rows."""


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
