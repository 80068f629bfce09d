"""The order of train rows in an epoch: a function of the seed, of which any part is computed alone.

Blocks of ROWS_PER_GROUP rows come in a seeded order, some of them at a time as a window, and the rows of a window are
shuffled together. So a reader needs one window in memory, and nobody needs the order of all rows: for a billion rows it
is the order of a million blocks. A closed form needs no order: it takes the rows as the files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.learners.base import Batch, joined
from kcm.learners.ranks import Ranks

ROWS_PER_GROUP = 1024  # rows of one Parquet row group: the unit of reading


@dataclass(frozen=True)
class WindowRows:
    """The rows of a window in their order: their streams, and their positions in these, each [N]."""

    streams: NDArray[np.int64]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.positions)


class TrainOrder:
    """The order of one epoch over `sizes[k]` train rows of stream k, window by window."""

    def __init__(self, sizes: Sequence[int], *, seed: int, task: int, epoch: int, window: int) -> None:
        self.sizes, self._window, self._key = list(sizes), window, [seed, task, epoch]
        self._firsts = np.concatenate([[0], np.cumsum([num_blocks(size) for size in sizes])]).astype(np.int64)
        blocks, self._rng = list(range(int(self._firsts[-1]))), np.random.default_rng(self._key)
        self._rng.shuffle(blocks)
        self._blocks = np.array(blocks)

    def __len__(self) -> int:
        """Windows of the epoch."""
        return -(-len(self._blocks) // self._window)

    def rows(self, number: int) -> WindowRows:
        """The rows of a window."""
        streams, firsts, lengths = self._extents(self._blocks[number * self._window : (number + 1) * self._window])
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        # The first window is drawn after the order of the blocks, by the same generator.
        rng = np.random.default_rng([*self._key, number]) if number else deepcopy(self._rng)
        order = rng.permutation(len(within))
        return WindowRows(np.repeat(streams, lengths)[order], (np.repeat(firsts, lengths) + within)[order])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place in the epoch of the first row of every window, and the number of rows, [len + 1]."""
        _, _, lengths = self._extents(self._blocks)
        return np.concatenate([[0], np.cumsum(np.add.reduceat(lengths, np.arange(0, len(lengths), self._window)))])

    def window_at(self, row: int) -> int:
        """The window that holds the row at this place of the epoch."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _extents(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Stream, first position and number of rows of each of some blocks."""
        streams = np.searchsorted(self._firsts, blocks, side="right") - 1
        starts = (blocks - self._firsts[streams]) * ROWS_PER_GROUP
        return streams, starts, np.minimum(ROWS_PER_GROUP, np.array(self.sizes)[streams] - starts)


def num_blocks(size: int) -> int:
    """Blocks of so many rows."""
    return -(-size // ROWS_PER_GROUP)


class FileOrder:
    """A rank's share of the train rows of streams, one stream after the other, for steps that need no other order.

    `read` returns the rows `start` to `stop` of a stream.
    """

    def __init__(self, sizes: Sequence[int], read: Callable[[int, int, int], Batch], ranks: Ranks) -> None:
        self._sizes, self._read, self._ranks = sizes, read, ranks

    def share(self, epoch: int, first: int, stop: int) -> Batch:
        """This rank's share of the rows `first` to `stop`, padding with weight 0."""
        index, weights = self._ranks.share(torch.arange(first, stop))
        begin, end = int(index[0]), int(index[-1]) + 1
        starts = accumulate(self._sizes, initial=0)
        rows = joined(
            self._read(stream, max(begin - start, 0), min(end - start, size))
            for stream, (start, size) in enumerate(zip(starts, self._sizes, strict=False))
            if begin < start + size and start < end
        )
        return rows.take(index - begin, weights)


Place = tuple[int, int]  # epoch, window


class Windows:
    """A rank's share of the train rows of a task's epochs: row p of epoch e is a function of e and p.

    `order` gives the order of an epoch, `read` the rows `start` to `stop` of a stream. Every rank reads every window.
    Two windows are held, whatever the number of rows.
    """

    def __init__(
        self,
        order: Callable[[int], TrainOrder],
        read: Callable[[int, int, int], Batch],
        ranks: Ranks | None = None,
    ) -> None:
        self._order, self._read, self._ranks = order, read, ranks or Ranks()
        self._orders: dict[int, TrainOrder] = {}
        self._windows: dict[Place, Batch] = {}

    def share(self, epoch: int, first: int, stop: int) -> Batch:
        """This rank's share of the rows at places `first` to `stop` of an epoch's order, padding with weight 0."""
        order, parts = self._order_of(epoch), []
        for window in range(order.window_at(first), order.window_at(stop - 1) + 1):
            begin, end = order.starts[window : window + 2].tolist()
            index = torch.arange(max(first, begin) - begin, min(stop, end) - begin)
            parts.append(self._rows_of((epoch, window)).take(index, torch.ones(len(index))))
        step = joined(parts)
        return step.take(*self._ranks.share(torch.arange(len(step))))

    def _rows_of(self, place: Place) -> Batch:
        if place not in self._windows:
            epoch, window = place
            before = (epoch, window - 1) if window else (epoch - 1, -1)
            self._windows = {held: rows for held, rows in self._windows.items() if held == before}
            self._windows[place] = self._load(place)
        return self._windows[place]

    def _load(self, place: Place) -> Batch:
        """The rows of a window in their order, read block by block."""
        order = self._order_of(place[0])
        rows = order.rows(place[1])
        parts, index, num_read = [], torch.empty(len(rows), dtype=torch.int64), 0
        for stream, start, stop in _ranges(rows, order.sizes):
            inside = (rows.streams == stream) & (rows.positions >= start) & (rows.positions < stop)
            index[torch.from_numpy(inside)] = torch.from_numpy(rows.positions[inside] - start + num_read)
            parts.append(self._read(stream, start, stop))
            num_read += stop - start
        return joined(parts).take(index, torch.ones(len(index)))

    def _order_of(self, epoch: int) -> TrainOrder:
        if epoch not in self._orders:
            self._orders = {known: order for known, order in self._orders.items() if known >= epoch - 1}
            self._orders[epoch] = self._order(epoch)
        return self._orders[epoch]


def _ranges(rows: WindowRows, sizes: list[int]) -> list[tuple[int, int, int]]:
    """Stream, start and stop of the runs of blocks that hold some rows."""
    ranges = []
    for stream in np.unique(rows.streams).tolist():
        blocks = np.unique(rows.positions[rows.streams == stream] // ROWS_PER_GROUP)
        for run in np.split(blocks, np.flatnonzero(np.diff(blocks) != 1) + 1):
            stop = min((int(run[-1]) + 1) * ROWS_PER_GROUP, sizes[stream])
            ranges.append((stream, int(run[0]) * ROWS_PER_GROUP, stop))
    return ranges
