"""Requests and responses. Responses never repeat an input, so they may be stored where inputs may not."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kcm.bundle.answers import Answer
from kcm.cascade.policy import Policy
from kcm.certification.certificate import Certificate
from kcm.explain.explanation import Reasons
from kcm.explain.gate import GateReading
from kcm.inputs.content import Part
from kcm.large.prompts import PromptMessage
from pipelines.serve.breaker import State
from pipelines.serve.release import RefusedRelease


class Timings(BaseModel):
    """Seconds of a request in each stage, waiting included; 0 for a stage that was not needed."""

    judge_s: Annotated[float, Field(description="Encoder, judge and small model.")]
    large_s: Annotated[float, Field(description="Large model, its queue and retries included.")] = 0.0
    total_s: float


class PredictResponse(BaseModel):
    """Answers in the order of the request's inputs, all from one version of the model."""

    model_version: str
    request_id: Annotated[str, Field(description="Id from the service; feedback names it. X-Request-Id is sent back.")]
    answers: list[Answer]
    timings: Timings


class ExplainResponse(BaseModel):
    """The reasons of the small side's decision. Unlike other responses this one repeats the input."""

    model_version: str
    request_id: str
    label: Annotated[str, Field(description="The small model's answer.")]
    judge_label: Annotated[str, Field(description="The judge's answer; the words are evidence for or against it.")]
    judge_confidence: Annotated[float, Field(description="The judge's probability of its own label.")]
    answer_probability: Annotated[float, Field(description="The small model's probability of its answer.")]
    escalated: bool
    words: Annotated[
        tuple[tuple[str, float], ...],
        Field(description="First words of the text, and the fall of the judge's logit of its answer without each."),
    ]
    cells: Annotated[
        list[list[float]] | None,
        Field(
            description="Contribution of each part of a picture to the judge's logit of its answer, by rows, if known."
        ),
    ]
    reasons: Annotated[dict[str, Reasons], Field(description="Contributions to the logit of a network's own answer.")]
    no_curves: Annotated[str | None, Field(description="Why there are no reasons; null if there are reasons.")]
    gate: Annotated[
        GateReading | None, Field(description="Contributions to the gate score, if the gate is made of curves.")
    ]
    messages: Annotated[
        list[PromptMessage],
        Field(
            description="The question to the large model, if the input is escalated: the messages to a generative"
            " model, or a dual encoder's label prompts; empty for a classifier, which reads the input alone."
        ),
    ]


class ReplicaTraffic(BaseModel):
    """Items that this replica has answered since it started, by any version."""

    small: int = 0
    large: int = 0
    small_degraded: int = 0
    cost_s: Annotated[float, Field(description="Seconds of computation for these items.")] = 0.0
    large_cost_s: Annotated[float, Field(description="Seconds of the large model for the items that it answered.")] = (
        0.0
    )

    def count(self, answers: Sequence[Answer]) -> None:
        """Count the items of a request."""
        for answer in answers:
            setattr(self, answer.route, getattr(self, answer.route) + 1)
            self.cost_s += answer.cost_s
            if answer.route == "large":
                self.large_cost_s += answer.large_cost_s

    @property
    def num_items(self) -> int:
        """All items."""
        return self.small + self.large + self.small_degraded

    @property
    def call_rate(self) -> float | None:
        """Share of items that the policy escalated, whichever model answered them."""
        return (self.large + self.small_degraded) / self.num_items if self.num_items else None

    @property
    def cost_saved(self) -> float | None:
        """Share of computation saved against the large model alone, from the cost of its own answers."""
        if not self.large or not self.large_cost_s:
            return None
        return 1 - self.cost_s / (self.num_items * self.large_cost_s / self.large)


class NoveltyCard(BaseModel):
    """Whether traffic holds new classes, as the answering replica sees it."""

    watched: Annotated[bool, Field(description="False if the bundle holds no reference for traffic.")]
    e_value: Annotated[float, Field(description="Evidence of new classes: 1 at first; 20 is an alarm.")] = 1.0
    escalates: Annotated[
        bool, Field(description="True once new classes were detected: inputs far from all known classes escalate.")
    ] = False


class ModelCard(BaseModel):
    """The model that is being served."""

    model_version: str
    digest: Annotated[str, Field(description="Digest of the bundle.")]
    labels: list[str]
    tasks: list[str]
    reads: Annotated[list[Part], Field(description="The parts of an item: all are required, no others are allowed.")]
    encoder: str
    large: str
    policy: Policy
    certificate: Annotated[Certificate | None, Field(description="Certificate for requests without a task.")]
    task_certificates: dict[str, Certificate]
    lineage: dict[str, Any]
    standing: Annotated[
        Literal["unknown", "holds", "refuted", "expired", "not certified on this runtime"],
        Field(description="Whether the certificate holds."),
    ] = "holds"
    void: Annotated[str | None, Field(description="Why the certificate does not hold in this service.")] = None
    novelty: NoveltyCard = NoveltyCard(watched=False)
    update_units: Annotated[
        int | None,
        Field(description="Certify units of traffic that the first update needs at this audit share; null: no audits."),
    ] = None
    traffic: Annotated[ReplicaTraffic, Field(description="Items by route, of the answering replica, since it started.")]
    call_rate: Annotated[float | None, Field(description="Share of these items that the policy escalated.")]
    cost_saved: Annotated[
        float | None,
        Field(description="Share of seconds saved, if every item cost as much as a call of the large model."),
    ]
    breaker: Annotated[State, Field(description="State of the large model's circuit breaker in this replica.")]
    loading: Annotated[str | None, Field(description="The version that is loaded to take over.")]
    refused: Annotated[RefusedRelease | None, Field(description="The last version that failed to load.")]


class Health(BaseModel):
    """The health of the service."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "ready"]
    degraded: Annotated[
        str | None, Field(description="A part that fails while the service still answers: the log.")
    ] = None


class Reason(BaseModel):
    """The same for clients of OpenAI's interface."""

    message: str
    code: Annotated[int, Field(description="The HTTP status.")]


class Problem(BaseModel):
    """Why a request was not answered, in one line."""

    detail: str
    error: Reason


class FeedbackResponse(BaseModel):
    """The durably stored labels."""

    request_id: str
    stored: Annotated[int, Field(description="Labels of this request that the log holds.")]
