"""What is put into the log and read from it: answered items and what becomes of them, as plain values."""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Answer, Route
from pipelines.serve.log.records.payloads import Payload


@dataclass(frozen=True)
class Origin:
    """Where a request comes from: the id that the service gave it, the name of its key, the id that the client gave."""

    request_id: str
    caller: str | None = None
    client_request_id: str | None = None


def utc_now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Shadow:
    """What a challenger would have done with an item that the champion answered."""

    model_version: str
    gate_score: float
    small_label: str
    keeps: bool


@dataclass(frozen=True)
class Decision:
    """One answered item, and its audit where one was drawn.

    `audit_share` is the probability with which kept items were drawn when it was answered, 0 without audits; it does
    not depend on the item. `drawn_label` is the small model's answer where the item was drawn, else None. `unit` is the
    digest of its unit (`kcm.tasks.units.unit_digest`), `payload` what is kept of its input. `sequence` counts what a
    replica has answered. An update learns from no item whose unit, score or small label is None. While a challenger is
    tried out, `stage` is that of its trial, `seconds` what the request took, and `shadow` what the challenger would
    have done.
    """

    origin: Origin
    item: int
    model_version: str
    route: Route
    audit_share: float = 0.0
    drawn_label: str | None = None
    small_label: str | None = None
    gate_score: float | None = None
    task: str | None = None
    unit: bytes | None = None
    large_identity: str | None = None
    payload: Payload | None = None
    sequence: int | None = None
    shadow: Shadow | None = None
    stage: int | None = None
    seconds: float | None = None
    answered_at: datetime.datetime = field(default_factory=utc_now)

    @property
    def probability(self) -> float:
        """That of the large model being asked about this item."""
        return self.audit_share if self.route == "small" else 1.0


@dataclass(frozen=True)
class Escalated:
    """The answer to an item that was not kept, and the large model's probabilities [C] where they are known."""

    item: int
    answer: Answer
    task: str | None = None
    large_probabilities_C: NDArray[np.floating] | None = None


@dataclass(frozen=True)
class Feedback:
    """The true label of one item of a request, and the input, if it is to be learned from.

    `new` is true of a label that the model does not know: it certifies and watches nothing.
    """

    item: int
    label: str
    text: str | None = None
    task: str | None = None
    new: bool | None = None


@dataclass(frozen=True)
class Tally:
    """Items of a version that are alike, and how many there are of them.

    Of audited items `probability` is that of the draw, `state` the audit's (None for items without one), `agrees`
    whether both sides gave the same label, `small_right` and `large_right` whether that is the true one. What is not
    known is None.
    """

    number: int
    audit_share: float
    route: str
    probability: float = 1.0
    state: str | None = None
    agrees: bool | None = None
    small_right: bool | None = None
    large_right: bool | None = None


class Event(NamedTuple):
    """A decision as the alarm sees it: `lost` where a loss is known of it, `final` unless that may still change."""

    number: int
    share: float
    lost: bool
    final: bool
    answered_at: datetime.datetime
