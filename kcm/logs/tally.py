"""What is counted of a log in passes over it: calls, spend and times of each template, and a sample of its rows."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import numpy as np

from kcm.large.prices import Prices, price_of
from kcm.logs.call import LoggedCall
from kcm.logs.grouping import Group, Start, groups, start_of
from kcm.logs.read import Log, Reading

NUM_SAMPLED = 20_000  # calls in which templates are sought
NUM_ROWS = 8_000  # rows of a template that train and certify
_MAX_CHARS = 64 << 20  # of the texts of a sample

T = TypeVar("T")


class Sample(Generic[T]):
    """A uniform sample without replacement of a stream, of bounded size and memory; in the stream's order."""

    def __init__(self, size: int, seed: int) -> None:
        self._rng, self._size, self._num_chars, self._place = np.random.default_rng(seed), size, 0, 0
        self._heap: list[tuple[float, int, T, int]] = []  # the largest key first, which is the next to go

    def add(self, item: T, num_chars: int) -> None:
        """Offer the next item of the stream."""
        self._place += 1
        key = float(self._rng.random())
        if len(self._heap) >= self._size and (not self._heap or -key < self._heap[0][0]):
            return
        heapq.heappush(self._heap, (-key, self._place, item, num_chars))
        self._num_chars += num_chars
        while len(self._heap) > self._size or (self._num_chars > _MAX_CHARS and len(self._heap) > 1):
            self._num_chars -= heapq.heappop(self._heap)[3]

    def items(self) -> list[T]:
        """The sampled items."""
        return [item for _, _, item, _ in sorted(self._heap, key=lambda entry: entry[1])]


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text of a template with the label that the large model gave it; None if the reply has none."""

    text: str
    label: str | None
    time: float | None


@dataclass
class CallTally:
    """Calls of one template, or of none. `spend` is in dollars; `unpriced` calls have neither a cost nor a price."""

    rows: Sample[LabelledText]
    calls: int = 0
    failed: int = 0
    spend: float = 0.0
    unpriced: int = 0
    models: dict[str, int] = field(default_factory=dict)
    begin: float | None = None
    end: float | None = None
    num_timed: int = 0

    def add(self, call: LoggedCall, prices: Prices) -> None:
        """Count a call."""
        self.calls += 1
        self.failed += call.failed
        self.models[call.model] = self.models.get(call.model, 0) + 1
        cost = cost_of(call, prices)
        self.spend += cost or 0.0
        self.unpriced += cost is None
        if call.time is not None:
            self.num_timed += 1
            self.begin = call.time if self.begin is None else min(self.begin, call.time)
            self.end = call.time if self.end is None else max(self.end, call.time)

    @property
    def model(self) -> str:
        """The model of most calls."""
        return max(self.models, key=lambda name: self.models[name], default="")


def cost_of(call: LoggedCall, prices: Prices) -> float | None:
    """Dollars that a call cost: by the log, or by its tokens and the price list; None if both are missing."""
    if call.cost is not None:
        return call.cost
    price = price_of(call.model, prices)
    if price is None or call.num_read is None:
        return None
    return (price[0] * call.num_read + price[1] * (call.num_written or 0)) / 1e6


@dataclass(frozen=True)
class Counted:
    """A log that was read: tallies by group, and of the calls that fit none."""

    groups: tuple[tuple[Group, CallTally], ...]
    others: CallTally
    reading: Reading


def counted(log: Log, prices: Prices, seed: int, progress: Callable[[str, int], None]) -> Counted:
    """Read the log twice: templates are inferred from a sample of the first pass, and all calls are counted in the
    second. `progress` is told the pass and the calls so far."""
    sample: Sample[LoggedCall] = Sample(NUM_SAMPLED, seed)
    for number, call in enumerate(log.calls(Reading()), 1):
        sample.add(call, sum(len(str(message.get("content"))) for message in call.messages) + len(call.reply or ""))
        progress("finding templates", number)
    matcher = _Matcher(groups([call for call in sample.items() if not call.failed]), seed)
    reading = Reading()
    for number, call in enumerate(log.calls(reading), 1):
        matcher.add(call, prices)
        progress("counting", number)
    return Counted(tuple(matcher.counted()), matcher.others, reading)


class _Matcher:
    """Finds the template of a call: the matching template with the longest fixed text."""

    def __init__(self, groups: Sequence[Group], seed: int) -> None:
        self.others = CallTally(Sample(0, seed))
        self._tallies = [(group, CallTally(Sample(NUM_ROWS if group.reader else 0, seed))) for group in groups]
        self._by_start: dict[Start, list[tuple[Group, CallTally]]] = {}
        for group, tally in sorted(self._tallies, key=lambda pair: -_fixed_size(pair[0])):
            start = tuple((message.role, message.content) for message in group.template.messages)
            self._by_start.setdefault(start, []).append((group, tally))

    def add(self, call: LoggedCall, prices: Prices) -> None:
        start = start_of(call)
        for group, tally in self._by_start.get(start, ()) if start is not None else ():
            text = group.template.text(call.messages)
            if text is not None:
                tally.add(call, prices)
                if group.reader and not call.failed and text.strip():
                    tally.rows.add(LabelledText(text, group.reader.label(call.reply), call.time), len(text))
                return
        self.others.add(call, prices)

    def counted(self) -> Iterator[tuple[Group, CallTally]]:
        """Groups with calls, the dearest first."""
        ordered = sorted(self._tallies, key=lambda pair: (-pair[1].spend, -pair[1].calls))
        return (pair for pair in ordered if pair[1].calls)


def _fixed_size(group: Group) -> int:
    return len(group.template.before) + len(group.template.after)
