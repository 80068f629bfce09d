"""The order of train rows in an epoch: a function of the seed, of which any part is computed alone.

Blocks of ROWS_PER_GROUP rows come in a seeded order, some of them at a time as a window, so that a reader needs one
window in memory and nobody needs the order of all rows: of a billion rows it is that of a million blocks. The blocks of
a window are its lanes: rows are shuffled within each, and the window takes a row of every lane in turn. So a step is a
stratified sample of the window, and a rank that owns some lanes reads no other ones. A closed form needs no order: it
takes the rows as the files have them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate

import numpy as np
import torch
from numpy.typing import NDArray

from kcm.learners.base import Batch, joined
from kcm.learners.ranks import Ranks

ROWS_PER_GROUP = 1024  # rows of one Parquet row group: the unit of reading
_OF_BLOCKS = 1  # sets the draws for blocks apart from those for rows


@dataclass(frozen=True)
class WindowRows:
    """A rank's rows of a window, in their order: their places within the window, streams and positions, each [N]."""

    places: NDArray[np.int64]
    streams: NDArray[np.int64]
    positions: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.places)


class TrainOrder:
    """The order of one epoch over `sizes[k]` train rows of stream k, window by window.

    The rows of an only window are shuffled together, and every rank has all of them. `starts` are the places in the
    epoch of the windows' first rows, and of its end.
    """

    def __init__(self, sizes: Sequence[int], *, seed: int, task: int, epoch: int, window: int) -> None:
        self.sizes, self._window, self._key = list(sizes), window, [seed, task, epoch]
        self._firsts = np.concatenate([[0], np.cumsum([num_blocks(size) for size in sizes])]).astype(np.int64)
        self._num_blocks = int(self._firsts[-1])
        self._blocks = np.random.default_rng([*self._key, _OF_BLOCKS]).permutation(self._num_blocks)

    def __len__(self) -> int:
        """Windows of the epoch."""
        return -(-self._num_blocks // self._window)

    def rows(self, number: int, ranks: Ranks) -> WindowRows:
        """This rank's rows of a window."""
        return self._shuffled() if self.has_one_window else self._lanes(number, ranks)

    @property
    def has_one_window(self) -> bool:
        """Whether all rows lie in one window."""
        return len(self) == 1

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of the first row of every window, and the number of rows, [len + 1]."""
        if self.has_one_window:
            return np.array([0, sum(self.sizes)])
        _, _, lengths = self._extents(self._blocks)
        return np.concatenate([[0], np.cumsum(np.add.reduceat(lengths, np.arange(0, len(lengths), self._window)))])

    def window_at(self, row: int) -> int:
        """The window that holds the row at this place of the epoch."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _shuffled(self) -> WindowRows:
        """The rows of the only window, shuffled together."""
        rng = np.random.default_rng(self._key)
        blocks = list(range(self._num_blocks))
        rng.shuffle(blocks)
        streams, starts, lengths = self._extents(np.array(blocks))
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        order = rng.permutation(len(within))
        positions = np.repeat(starts, lengths) + within
        return WindowRows(np.arange(len(order)), np.repeat(streams, lengths)[order], positions[order])

    def _lanes(self, number: int, ranks: Ranks) -> WindowRows:
        """The rows of a rank's lanes of a window."""
        blocks = self._blocks[number * self._window : (number + 1) * self._window]
        streams, starts, lengths = self._extents(blocks)
        lanes, turns = ranks.lanes(len(blocks))
        merged = _merged(lengths)
        places = [merged[lane][turns] for lane in lanes]
        positions = [
            starts[lane] + np.random.default_rng([*self._key, number, lane]).permutation(lengths[lane])[turns]
            for lane in lanes
        ]
        by_place = np.argsort(np.concatenate(places))
        own = np.repeat(streams[lanes], [len(part) for part in places])
        return WindowRows(np.concatenate(places)[by_place], own[by_place], np.concatenate(positions)[by_place])

    def _extents(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Stream, first position and number of rows of each of some blocks."""
        streams = np.searchsorted(self._firsts, blocks, side="right") - 1
        starts = (blocks - self._firsts[streams]) * ROWS_PER_GROUP
        return streams, starts, np.minimum(ROWS_PER_GROUP, np.array(self.sizes)[streams] - starts)


def num_blocks(size: int) -> int:
    """Blocks of so many rows."""
    return -(-size // ROWS_PER_GROUP)


def _merged(lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """The places of each lane's rows where lanes of these lengths are merged, each evenly spread over the whole.

    Place p of L equally long lanes is row p // L of lane p % L.
    """
    if (lengths == lengths[0]).all():
        return [np.arange(lane, lengths.sum(), len(lengths)) for lane in range(len(lengths))]
    when = np.concatenate([(np.arange(length) + 0.5) / length for length in lengths])
    places = np.empty(len(when), dtype=np.int64)
    places[np.argsort(when, kind="stable")] = np.arange(len(when))
    return np.split(places, np.cumsum(lengths)[:-1])


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
