"""What clients send and receive. None of it repeats an input: answers and errors may be kept where inputs may not."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from kcm.bundle.answers import Answer
from kcm.cascade.policy import Policy
from kcm.certification.certificate import Certificate
from kcm.explain.gate import GateReading
from kcm.explain.reasons import Reasons
from kcm.inputs.content import Part
from kcm.large.prompts import PromptView
from pipelines.serve.breaker import State
from pipelines.serve.release import RefusedRelease


class Timings(BaseModel):
    """Seconds that a request spent in each stage, waiting included; 0 for a stage that it did not need."""

    judge_s: Annotated[float, Field(description="Encoder, judge and small model.")]
    large_s: Annotated[float, Field(description="Large model, its queue and retries included.")] = 0.0
    total_s: float


class PredictResponse(BaseModel):
    """Answers in the order of the request's inputs, all by one version of the model."""

    model_version: str
    request_id: Annotated[str, Field(description="Given by the service; feedback names it. X-Request-Id is sent back.")]
    answers: list[Answer]
    timings: Timings


class ExplainResponse(BaseModel):
    """How the small side came to its decision. Unlike other answers it repeats the input."""

    model_version: str
    request_id: str
    label: Annotated[str, Field(description="The small model's answer.")]
    judge_label: Annotated[str, Field(description="The judge's answer, which the words speak for or against.")]
    judge_confidence: Annotated[float, Field(description="The judge's probability of its own label.")]
    answer_probability: Annotated[float, Field(description="The small model's probability of its answer.")]
    escalated: bool
    words: Annotated[
        tuple[tuple[str, float], ...],
        Field(description="First words of the text, and how much lower the judge's logit of its answer is without."),
    ]
    cells: Annotated[
        list[list[float]] | None,
        Field(description="What the parts of a picture add to the judge's logit of its answer, by rows, if known."),
    ]
    reasons: Annotated[dict[str, Reasons], Field(description="What the logit of a network's own answer is made of.")]
    no_curves: Annotated[str | None, Field(description="Why there are no reasons, where there are none.")]
    gate: Annotated[GateReading | None, Field(description="What the gate score is made of, where it is of curves.")]
    shown: Annotated[
        PromptView, Field(description="The question to the large model: as it is sent where the input is escalated.")
    ]


class ReplicaTraffic(BaseModel):
    """Items that this replica answered since it started, whatever the version."""

    small: int = 0
    large: int = 0
    small_degraded: int = 0
    cost_s: Annotated[float, Field(description="Seconds of computation that these items took.")] = 0.0
    large_cost_s: Annotated[float, Field(description="Those of the large model for items that it answered.")] = 0.0

    def count(self, answers: Sequence[Answer]) -> None:
        """Count the items of a request."""
        for answer in answers:
            setattr(self, answer.route, getattr(self, answer.route) + 1)
            self.cost_s += answer.cost_s
            if answer.route == "large":
                self.large_cost_s += answer.large_cost_s

    @property
    def num_items(self) -> int:
        """All of them."""
        return self.small + self.large + self.small_degraded

    @property
    def call_rate(self) -> float | None:
        """Share of the items that the policy escalated, whoever answered them in the end."""
        return (self.large + self.small_degraded) / self.num_items if self.num_items else None

    @property
    def cost_saved(self) -> float | None:
        """Share of the computation saved against the large model alone, whose cost is taken from its own answers."""
        if not self.large or not self.large_cost_s:
            return None
        return 1 - self.cost_s / (self.num_items * self.large_cost_s / self.large)


class ChallengerCard(BaseModel):
    """A version that is tried out beside the one that is served."""

    version: str
    digest: Annotated[str | None, Field(description="Digest of its bundle; null while it is not in memory.")]
    share: Annotated[float, Field(description="Share of the callers that it answers.")]
    stage: int
    dropped: Annotated[str | None, Field(description="Why it is not tried out any more.")]


class DriftCard(BaseModel):
    """Whether traffic still looks like the certify rows, as the replica sees it that answers."""

    watched: Annotated[bool, Field(description="False where the bundle holds nothing to compare traffic with.")]
    e_values: Annotated[
        dict[str, float], Field(description="Evidence of drift by quantity; 1 at first, and 1 on average without any.")
    ] = Field(default_factory=dict)
    drifted: Annotated[str | None, Field(description="What has drifted the most, where something has.")] = None
    escalates_novel: Annotated[
        bool, Field(description="True once new classes were noticed: inputs far from all known ones escalate.")
    ] = False


class ModelCard(BaseModel):
    """The model that is being served."""

    model_version: str
    digest: Annotated[str, Field(description="Digest of the bundle.")]
    labels: list[str]
    tasks: list[str]
    reads: Annotated[list[Part], Field(description="What an item must have, and may have alone.")]
    encoder: str
    large: str
    policy: Policy
    certificate: Annotated[Certificate | None, Field(description="Of requests that carry no task.")]
    task_certificates: dict[str, Certificate]
    lineage: dict[str, Any]
    standing: Annotated[
        Literal["holds", "refuted", "expired", "void"],
        Field(description="Whether what was certified may be relied on."),
    ] = "holds"
    void: Annotated[str | None, Field(description="Why what was certified elsewhere does not hold here.")] = None
    drift: DriftCard = DriftCard(watched=False)
    traffic: Annotated[
        ReplicaTraffic, Field(description="Items by route, of the replica that answers, since it started.")
    ]
    call_rate: Annotated[float | None, Field(description="Share of these items that the policy escalated.")]
    cost_saved: Annotated[
        float | None,
        Field(description="Share of the seconds saved, were every item as costly as a call of the large model."),
    ]
    breaker: Annotated[State, Field(description="Whether this replica asks the large model.")]
    loading: Annotated[str | None, Field(description="The version that is loaded to take over.")]
    refused: Annotated[RefusedRelease | None, Field(description="The last version offered, where it does not work.")]
    challenger: Annotated[ChallengerCard | None, Field(description="The version that is tried out beside it.")] = None


class Health(BaseModel):
    """How the service is."""

    model_config = ConfigDict(frozen=True)

    status: Literal["ok", "ready"]
    degraded: Annotated[str | None, Field(description="What does not work while answers go on: the log.")] = None


class Reason(BaseModel):
    """The same for clients of OpenAI's interface."""

    message: str
    code: Annotated[int, Field(description="The HTTP status.")]


class Problem(BaseModel):
    """Why a request was not answered, in one line."""

    detail: str
    error: Reason


class Refusal(Exception):
    """A request that is not answered; `retry_after_s` is None where the same request would be refused again."""

    def __init__(self, status: int, detail: str, retry_after_s: int | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.retry_after_s = status, detail, retry_after_s

    @property
    def headers(self) -> dict[str, str]:
        """When a client may try again."""
        return {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}


class VersionRecord(BaseModel):
    """What a version has answered, saved and lost, by the log."""

    version: str
    since: Annotated[datetime, Field(description="Its first answer.")]
    until: Annotated[datetime, Field(description="Its last one.")]
    num_items: int
    num_escalated: Annotated[int, Field(description="Those that were the large model's to answer.")]
    num_audited: int
    disagreement: Annotated[
        tuple[float, float] | None,
        Field(description="How often kept items differ from the large model, at 90%; null where none was audited."),
    ]
    num_labels: Annotated[int, Field(description="Given by callers, or by people who were asked.")]
    refuted_at: Annotated[datetime | None, Field(description="When its certificate was refuted.")]


class LoopRecord(BaseModel):
    """What all versions have answered since the log began."""

    num_items: int
    num_escalated: int
    num_labels: int
    versions: Annotated[list[VersionRecord], Field(description="The first one first.")]


class FeedbackResponse(BaseModel):
    """What is stored by now, whatever happens to the service."""

    request_id: str
    stored: Annotated[int, Field(description="Labels of this request that the log holds.")]
