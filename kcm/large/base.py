"""The protocol of large models: a batch of items in, one answer per item out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from kcm.inputs import content
from kcm.inputs.content import Content
from kcm.large.prompts import NO_PROMPT, Prompt


@dataclass(frozen=True)
class Item:
    """One question: the item's id, its content, and the prompt of the small side."""

    id: str
    content: Content
    prompt: Prompt = NO_PROMPT


PROBE = Item("probe", content.PROBE)  # a question that a model must answer before any client's is put to it


@dataclass(frozen=True)
class Cost:
    """What one answer cost: seconds of the model's time, tokens read and written, currency."""

    seconds: float = 0.0
    tokens: int = 0
    currency: float = 0.0


@dataclass(frozen=True)
class LargeAnswer:
    """One answer. `label` counts in the model's label list; it is None exactly when `error` gives the reason.

    `probabilities` float32 [C] sum to 1, or are None where the model gives only a label. `off_label` marks an answer
    outside the label list, which is wrong, not missing; `reply` is what it said. `outage` marks a missing answer
    because the model's server was unreachable, failing or too slow, which is no fault of this item.
    """

    label: int | None
    probabilities: np.ndarray | None = None
    cost: Cost = field(default=Cost())
    error: str | None = None
    off_label: bool = False
    reply: str = ""
    outage: bool = False

    def fault(self, num_answers: int) -> str | None:
        """What makes no sense in an answer of a model that knows so many labels; an adapter may be anybody's."""
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
        """One answer per item, in their order. The failure of an item is an answer with `error`, not an exception."""


@dataclass(frozen=True)
class Estimate:
    """The questions that are not paid for yet: calls, tokens and currency expected, and the most that they may cost."""

    calls: int = 0
    tokens: float = 0.0
    currency: float = 0.0
    most: float = 0.0

    def __add__(self, other: Estimate) -> Estimate:
        values, other_values = (vars(estimate).values() for estimate in (self, other))
        return Estimate(*(a + b for a, b in zip(values, other_values, strict=True)))


@runtime_checkable
class PaidModel(Protocol):
    """A large model behind a server that may cost money; `ask_shards` says what, before and after."""

    def probe(self) -> LargeAnswer:
        """The server's answer to a question of no row, never a cached one. Raises what `answer` raises."""

    def estimate(self, items: Sequence[Item]) -> Estimate:
        """What the answers to `items` will take that are not paid for yet; nothing is asked."""

    def ask_ahead(self, items: Iterable[Sequence[Item]]) -> None:
        """Pay for answers that are cheaper when they may come late, before the items are asked one by one."""

    def spent(self) -> tuple[int, float]:
        """Calls and currency paid so far, over all runs on the same store."""

    def close(self) -> None:
        """Ask nothing more; whoever waits for an answer gets CancelledError."""


@runtime_checkable
class AsksEach(Protocol):
    """A large model that answers items independently, such as a remote one: a batch waits for its slowest item."""

    def ask(self, item: Item) -> Future[LargeAnswer]:
        """The answer to one item; cancelled before it is asked, it is not asked."""
