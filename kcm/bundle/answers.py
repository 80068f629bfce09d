"""Inputs and answers of a cascade, without networks. Shapes: D features, C labels."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.inputs.content import Content

Route = Literal["small", "large", "small_degraded"]


@dataclass(frozen=True)
class Input:
    """One input; `task` is set if the request names it, `id` if a recorded large model needs it.

    `group` names the rows that must stay in the same split, such as the author's; "" for none.
    """

    content: Content
    task: str | None = None
    id: str = ""
    group: str = ""


@dataclass(frozen=True)
class Judgement:
    """The small side's judgement of one input.

    `label` and `probabilities_C` are the small model's, `judge_confidence` is the judge's largest probability; all
    probabilities are at the policy's temperature. `features_D` are the encoder's, for explanations. `novelty` is the
    distance from all known classes, 0 if unknown; `far`: it is beyond the reach of the policy, which escalates it.
    """

    label: int
    probabilities_C: NDArray[np.float64]
    judge_confidence: float
    gate_score: float
    threshold: float  # infinite if the policy keeps or escalates everything
    keeps: bool
    cost_s: float
    features_D: NDArray[np.float32]
    novelty: float = 0.0
    far: bool = False

    @property
    def against(self) -> str:
        """The continuation of `the gate score is 1.25`."""
        if self.far:
            return ", but the input is far from all train rows"
        return f" against a threshold of {self.threshold:.2f}" if math.isfinite(self.threshold) else ""


@dataclass(frozen=True)
class Answer:
    """The cascade's answer to one input.

    `probabilities` are the answering model's, for the most likely labels; empty if it returned only a label.
    `answer_probability` is its probability of `label`, if known. `judge_confidence` is the judge's probability of its
    own label, which may differ. `threshold` is null if all inputs take one route. `degraded` marks a small answer given
    because the large model failed, which no certificate covers; `fault` is the reason. `cost_s` is the answer's
    computing time in seconds; `large_cost_s` is the large model's part of it.
    """

    label: str
    probabilities: dict[str, float]
    judge_confidence: float
    gate_score: float
    threshold: float | None
    route: Route
    degraded: bool
    cost_s: float
    large_cost_s: float = 0.0
    answer_probability: float | None = None
    fault: Annotated[str | None, Field(exclude=True)] = field(default=None, compare=False)  # hidden from clients


@dataclass(frozen=True)
class Failure:
    """No answer: the large model failed, and the policy does not let the small model answer instead."""

    reason: str


@dataclass(frozen=True)
class Unreadable(Failure):
    """No answer: the input cannot be read."""
