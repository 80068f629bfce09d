"""The protocol of large models: a batch of items in, one answer per item out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np
import pyarrow as pa

from kcm.inputs import content
from kcm.inputs.content import Content


@dataclass(frozen=True)
class Item:
    """One question: the item's id and its content."""

    id: str
    content: Content


PROBE = Item("probe", content.PROBE)  # a model must answer this question before it gets any client's


@dataclass(frozen=True)
class Cost:
    """The cost of one answer: seconds of the model's time, tokens read and written, currency."""

    seconds: float = 0.0
    tokens: int = 0
    currency: float = 0.0


@dataclass(frozen=True)
class LargeAnswer:
    """One answer. `label` is an index into the model's label list; it is None exactly when `error` gives the reason.

    `probabilities` float32 [C] sum to 1, or are None if the model gives only a label. `off_label` marks an answer
    outside the label list, which is wrong, not missing; `reply` is its text. `outage` marks an answer that is missing
    because the server is unreachable, failing or too slow, not because of the item.
    """

    label: int | None
    probabilities: np.ndarray | None = None
    cost: Cost = field(default=Cost())
    error: str | None = None
    off_label: bool = False
    reply: str = ""
    outage: bool = False

    def fault(self, num_answers: int) -> str | None:
        """The fault of an answer by a model with `num_answers` labels, or None; adapters may come from anybody."""
        if self.label is not None and not 0 <= self.label < num_answers:
            return "a label that is not on the list"
        probabilities = self.probabilities
        if probabilities is not None and not (
            probabilities.shape == (num_answers,) and np.isfinite(probabilities).all() and (probabilities >= 0).all()
        ):
            return "probabilities that are none"
        return None


class LargeModel(Protocol):
    """A pretrained large model, ready to answer."""

    def answer(self, items: Sequence[Item]) -> list[LargeAnswer]:
        """One answer per item, in order. A failed item gives an answer with `error`, not an exception."""


@dataclass(frozen=True)
class Estimate:
    """The questions that are not paid for yet: expected calls, tokens and currency, and their highest cost."""

    calls: int = 0
    tokens: float = 0.0
    currency: float = 0.0
    most: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        values, other_values = (vars(estimate).values() for estimate in (self, other))
        return Estimate(*(a + b for a, b in zip(values, other_values, strict=True)))


@runtime_checkable
class PaidModel(Protocol):
    """A large model behind a server that may cost money; `ask_shards` reports the cost before and after."""

    @property
    def rows_per_batch(self) -> int:
        """Rows that are asked and committed together: enough to keep all connections busy."""

    @property
    def max_failed(self) -> float:
        """Share of a run's rows that may stay without an answer; all of them never may."""

    def probe(self) -> LargeAnswer:
        """The server's answer to a question that belongs to no row, never cached. Raises what `answer` raises."""

    def estimate(self, items: Sequence[Item]) -> Estimate:
        """Expected cost of the answers to `items` that are not paid yet; asks nothing."""

    def ask_ahead(self, items: Iterable[Sequence[Item]]) -> None:
        """Pay for answers that are cheaper if they may come late, before the items are asked one by one."""

    def spent(self) -> tuple[int, float]:
        """Calls and currency paid so far, over all runs on the same store."""

    def close(self) -> None:
        """Ask nothing more; waiting callers get CancelledError."""


@runtime_checkable
class RecordedAnswers(Protocol):
    """A large model whose answers are known already; a run looks them up by id."""

    def tables(self) -> Iterator[pa.Table]:
        """All answers, some thousand rows at a time, as `kcm.large.adapters.recorded`."""


@runtime_checkable
class ReadsAhead(Protocol):
    """A large model that can read a picture before it joins a batch."""

    def read(self, content: Content) -> Content:
        """See `kcm.encoders.Encoder`."""


@runtime_checkable
class AsksEach(Protocol):
    """A large model that answers items independently, such as a remote one: a batch waits for its slowest item."""

    def ask(self, item: Item) -> Future[LargeAnswer]:
        """The answer to one item; if it is cancelled before it is sent, it is not asked."""
