"""The rows of training steps, read a window at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.learners.base import Batch, joined
from kcm.learners.ranks import Ranks
from kcm.learners.training.order import ROWS_PER_GROUP, TrainOrder, WindowRows

Place = tuple[int, int]  # epoch, window


@dataclass(frozen=True)
class _Held:
    """A rank's rows of a window in their order, and their places [N] in it; padding, if there are none."""

    places: NDArray[np.int64]
    rows: Batch


class Windows:
    """A rank's share of the train rows of a task's epochs: row p of epoch e is a function of e and p.

    `order` gives the order of an epoch, `read` the rows `start` to `stop` of a stream. A rank reads its own lanes of a
    window alone; an only window it has whole. Two windows are held, whatever the number of rows.
    """

    def __init__(
        self,
        order: Callable[[int], TrainOrder],
        read: Callable[[int, int, int], Batch],
        ranks: Ranks | None = None,
    ) -> None:
        self._order, self._read, self._ranks = order, read, ranks or Ranks()
        self._known: dict[int, TrainOrder] = {}
        self._held: dict[Place, _Held] = {}

    def share(self, epoch: int, first: int, stop: int) -> Batch:
        """This rank's share of the rows at places `first` to `stop` of an epoch's order, padding with weight 0.

        There is one row at least, so that ranks take every step together.
        """
        order = self._order_of(epoch)
        if order.has_one_window:
            return self._window((epoch, 0)).rows.take(*self._ranks.share(torch.arange(first, stop)))
        parts = []
        for window in range(order.window_at(first), order.window_at(stop - 1) + 1):
            held = self._window((epoch, window))
            ends = np.searchsorted(held.places, np.array([first, stop]) - order.starts[window])
            index = torch.arange(*ends.tolist())
            parts.append(held.rows.take(index, torch.ones(len(index))))
        share = joined(parts)
        return share if len(share) else held.rows.take(torch.zeros(1, dtype=torch.int64), torch.zeros(1))

    def _window(self, place: Place) -> _Held:
        if place not in self._held:
            self._held = {kept: rows for kept, rows in self._held.items() if kept == self._before(place)}
            self._held[place] = self._load(place)
        return self._held[place]

    def _before(self, place: Place) -> Place:
        epoch, window = place
        return (epoch, window - 1) if window else (epoch - 1, -1)

    def _load(self, place: Place) -> _Held:
        """This rank's rows of a window in their order, read block by block."""
        order = self._order_of(place[0])
        mine = order.rows(place[1], self._ranks)
        if not len(mine):  # a short block has fewer rows than there are ranks that share it
            return _Held(mine.places, self._read(0, 0, 1))
        parts, index, num_read = [], torch.empty(len(mine), dtype=torch.int64), 0
        for stream, start, stop in _ranges(mine, order.sizes):
            inside = (mine.streams == stream) & (mine.positions >= start) & (mine.positions < stop)
            index[torch.from_numpy(inside)] = torch.from_numpy(mine.positions[inside] - start + num_read)
            parts.append(self._read(stream, start, stop))
            num_read += stop - start
        return _Held(mine.places, joined(parts).take(index, torch.ones(len(index))))

    def _order_of(self, epoch: int) -> TrainOrder:
        if epoch not in self._known:
            self._known = {known: order for known, order in self._known.items() if known >= epoch - 1}
            self._known[epoch] = self._order(epoch)
        return self._known[epoch]


def _ranges(rows: WindowRows, sizes: list[int]) -> list[tuple[int, int, int]]:
    """Stream, start and stop of the runs of blocks that hold some rows."""
    ranges = []
    for stream in np.unique(rows.streams).tolist():
        blocks = np.unique(rows.positions[rows.streams == stream] // ROWS_PER_GROUP)
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
            stop = min((int(run[-1]) + 1) * ROWS_PER_GROUP, sizes[stream])
            ranges.append((stream, int(run[0]) * ROWS_PER_GROUP, stop))
    return ranges
