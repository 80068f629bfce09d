"""What goes into a cascade and what comes out of it, in words that need no networks. Shapes: D features, C labels."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from kcm.inputs.content import Content

Route = Literal["small", "large", "small_degraded"]


@dataclass(frozen=True)
class Input:
    """One input; `task` is carried where the request knows it, `id` where a recorded large model looks it up.

    `group` names what must stay together with it where data is split, such as its author; "" for nothing.
    """

    content: Content
    task: str | None = None
    id: str = ""
    group: str = ""


@dataclass(frozen=True)
class Judgement:
    """The small side's judgement of one input.

    `label` and `probabilities_C` are the small model's, `judge_confidence` is the judge's largest probability; both
    kinds of probabilities are at the policy's temperature. `features_D` are the encoder's, for explanations. `novelty`
    is the distance from all known classes, 0 where it is not known.
    """

    label: int
    probabilities_C: NDArray[np.float64]
    judge_confidence: float
    gate_score: float
    threshold: float  # infinite where the policy keeps or escalates all
    keeps: bool
    cost_s: float
    features_D: NDArray[np.float32]
    novelty: float = 0.0


@dataclass(frozen=True)
class Answer:
    """The cascade's answer to one input.

    `probabilities` are those of the likeliest labels, by the model that answered; empty where it gave only a label.
    `answer_probability` is that model's of `label`, where it is known. `judge_confidence` is the judge's of its own
    label, which may be another. `threshold` is null where all inputs take one route. `degraded` marks an answer of the
    small model in place of a large one that failed, which no certificate covers; `fault` says why it failed. `cost_s`
    are the seconds of computation that the answer took, `large_cost_s` those among them that the large model took.
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
    fault: Annotated[str | None, Field(exclude=True)] = field(default=None, compare=False)  # not told to clients


@dataclass(frozen=True)
class Failure:
    """No answer: the large model failed, and the policy does not let the small model answer instead."""

    reason: str


@dataclass(frozen=True)
class Unreadable(Failure):
    """No answer: the input cannot be read."""
