"""Entries of the log: answered items, the stored part of their inputs, and true labels."""

from __future__ import annotations

import datetime
import hmac
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kcm.bundle.answers import Route
from kcm.inputs.content import Content
from kcm.tasks.units import unit_of
from pipelines.serve.config import StoredInputs
from pipelines.serve.errors import RequestError

MAX_NAME = 200  # characters of a label or a task, as wide as the columns are
ANONYMOUS = "anonymous"  # the caller in the log where no keys are required
_COLUMNS = (
    *("item", "model_version", "large_identity", "gate_score", "route", "audit_share", "probability", "answered_at"),
    "sequence",
)


@dataclass(frozen=True)
class Origin:
    """Where a request comes from: the service's request id, the name of its key, the client's own id."""

    request_id: str
    caller: str | None = None
    client_request_id: str | None = None


@dataclass(frozen=True)
class Payload:
    """The stored parts of an input; features are float32, little-endian."""

    text: str | None = None
    image: bytes | None = None
    features: bytes | None = None

    @property
    def num_bytes(self) -> int:
        """How much it takes; a character counts as one."""
        return sum(len(part) for part in (self.text, self.image, self.features) if part)

    @classmethod
    def of(cls, content: Content, features_D: NDArray[np.float32], route: Route, parts: StoredInputs) -> Payload | None:
        """What is kept of an input."""
        if parts == "all":
            return cls(content.text or None, content.image or None, as_bytes(features_D))
        is_stored = parts == "text" or (parts == "escalated" and route != "small")
        return cls(content.text) if is_stored and content.text else None


def utc_now() -> datetime.datetime:
    """The time in UTC."""
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class LoggedDecision:
    """One answered item.

    `audit_share` is the probability with which kept items were drawn for an audit at that moment (0 without audits); it
    does not depend on the item. `drawn` says whether this item was drawn. `large_label` and `large_probabilities_C` are
    the large model's answer to an escalated item. `unit` is the digest of its unit (`kcm.tasks.units.unit_digest`),
    `payload` the stored part of its input. `sequence` counts the answers of a replica. An update skips
    items whose unit, score or small label is None.
    """

    origin: Origin
    item: int
    model_version: str
    route: Route
    audit_share: float = 0.0
    drawn: bool = False
    small_label: str | None = None
    gate_score: float | None = None
    large_label: str | None = None
    large_probabilities_C: NDArray[np.floating] | None = None
    task: str | None = None
    unit: bytes | None = None
    large_identity: str | None = None
    payload: Payload | None = None
    sequence: int | None = None
    answered_at: datetime.datetime = field(default_factory=utc_now)

    @property
    def probability(self) -> float:
        """Probability that the large model is asked about this item."""
        return self.audit_share if self.route == "small" else 1.0

    def row(self, key: bytes) -> dict[str, Any]:
        """Its columns; `key` is the log's, for what is stored as a keyed hash."""
        probabilities_C = self.large_probabilities_C
        return {name: getattr(self, name) for name in _COLUMNS} | {
            "request_id": self.origin.request_id,
            "client_request_id": self.origin.client_request_id,
            "caller": hashed(self.origin.caller, key),
            "unit": None if self.unit is None else unit_of(self.unit, key),
            "task": _name(self.task),
            "small_label": _name(self.small_label),
            "state": "drawn" if self.drawn else None,
            "large_label": _name(self.large_label),
            "large_probabilities": None if probabilities_C is None else as_bytes(probabilities_C),
        }

    def payload_row(self) -> dict[str, Any] | None:
        """The columns of its payload, if there is one."""
        if self.payload is None:
            return None
        row = vars(self.payload) | {"num_bytes": self.payload.num_bytes, "stored_at": self.answered_at}
        return storable(row | {"request_id": self.origin.request_id, "item": self.item})


@dataclass(frozen=True)
class Feedback:
    """The true label of one item of a request, and the input if an update may learn from it.

    `new` marks a label that the model does not know: it does not count for certificates or alarms.
    """

    item: int
    label: str
    text: str | None = None
    task: str | None = None
    new: bool | None = None


class RejectedError(RequestError):
    """The log refuses labels and stores none of them."""


class UnknownAnswerError(RejectedError):
    """A label for an item that was not answered for this caller."""


class LabelConflictError(RejectedError):
    """An item has another label already."""


class TooManyLabelsError(RejectedError):
    """The caller has given too many new labels."""


def hashed(caller: str | None, key: bytes) -> str:
    """A keyed hash of the caller: it distinguishes callers in this log and matches nothing in another one."""
    return ANONYMOUS if caller is None else hmac.new(key, caller.encode(), sha256).hexdigest()


def as_bytes(values: NDArray[np.floating]) -> bytes:
    """The values as float32, little-endian."""
    return values.astype("<f4").tobytes()


def storable(row: dict[str, Any]) -> dict[str, Any]:
    """Without the character NUL, which PostgreSQL cannot store in a text."""
    return {name: value.replace("\x00", "") if isinstance(value, str) else value for name, value in row.items()}


def _name(name: str | None) -> str | None:
    """A name that PostgreSQL can store: a refused decision would be retried with every batch."""
    return name and name.replace("\x00", "")[:MAX_NAME]
