"""The rows of training steps, read a window at a time; the next window is read while this one is used."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from kcm.learners.base import Batch, joined
from kcm.learners.training.order import TrainOrder

Place = tuple[int, int]  # epoch, window


class Windows:
    """The train rows of a task's epochs by their places in the order: row p of epoch e is a function of e and p.

    `order` gives the order of an epoch, `read` the rows `start` to `stop` of a stream. Two or three windows are held,
    whatever the number of rows.
    """

    def __init__(self, order: Callable[[int], TrainOrder], read: Callable[[int, int, int], Batch], epochs: int) -> None:
        self._order, self._read, self._epochs = order, read, epochs
        self._known: dict[int, TrainOrder] = {}
        self._held: dict[Place, Batch] = {}
        self._next: tuple[Place, Future[Batch]] | None = None
        self._thread: ThreadPoolExecutor | None = None

    def rows(self, epoch: int, places: Tensor) -> Batch:
        """The rows at these places of an epoch's order, which lie beside each other; all with weight 1."""
        order = self._order_of(epoch)
        first, last = (order.window_at(int(place)) for place in (places.min(), places.max()))
        parts = []
        for window in range(first, last + 1):
            start, stop = int(order.starts[window]), int(order.starts[window + 1])
            mine = places[(places >= start) & (places < stop)] - start
            if len(mine):
                parts.append(self._window((epoch, window)).take(mine, torch.ones(len(mine))))
        return joined(parts)

    def _window(self, place: Place) -> Batch:
        if place not in self._held:
            found = self._next[1].result() if self._next and self._next[0] == place else self._load(place)
            self._held = {kept: rows for kept, rows in self._held.items() if kept == self._before(place)}
            self._held[place] = found
            self._prefetch(place)
        return self._held[place]

    def _prefetch(self, place: Place) -> None:
        """Begin to read the window after `place`; the only one of a task stays, and there is nothing to wait for."""
        epoch, window = place
        after = (epoch, window + 1) if window + 1 < len(self._order_of(epoch)) else (epoch + 1, 0)
        self._next = None
        if len(self._order_of(epoch)) > 1 and after[0] < self._epochs:
            self._thread = self._thread or ThreadPoolExecutor(1, thread_name_prefix="train rows")
            self._order_of(after[0])
            self._next = after, self._thread.submit(self._load, after)

    def _before(self, place: Place) -> Place:
        epoch, window = place
        return (epoch, window - 1) if window else (epoch - 1, -1)

    def _load(self, place: Place) -> Batch:
        """The rows of a window in their order, read block by block."""
        streams, positions = self._known[place[0]][place[1]]
        parts, at = [], torch.empty(len(streams), dtype=torch.int64)
        row = 0
        for stream in sorted(set(streams.tolist())):
            mine = (streams == stream).nonzero()[:, 0]
            ordered, back = positions[mine].sort()
            for start, stop in _ranges(ordered):
                parts.append(self._read(stream, start, stop))
            at[mine[back]] = torch.arange(row, row + len(mine))
            row += len(mine)
        return joined(parts).take(at, torch.ones(len(at)))

    def _order_of(self, epoch: int) -> TrainOrder:
        if epoch not in self._known:
            self._known = {known: order for known, order in self._known.items() if known >= epoch - 1}
            self._known[epoch] = self._order(epoch)
        return self._known[epoch]


def _ranges(ordered: Tensor) -> list[tuple[int, int]]:
    """Start and end of the runs of consecutive numbers among ascending ones."""
    breaks = (ordered.diff() != 1).nonzero()[:, 0] + 1
    starts = [0, *breaks.tolist()]
    ends = [*breaks.tolist(), len(ordered)]
    return [(int(ordered[start]), int(ordered[end - 1]) + 1) for start, end in zip(starts, ends, strict=True)]
