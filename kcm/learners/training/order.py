"""The order of train rows in an epoch: a function of the seed, of which any part is computed alone.

Blocks of ROWS_PER_GROUP rows come in a seeded order, some of them at a time as a window, so that a reader needs one
window in memory and nobody needs the order of all rows: of a billion rows it is that of a million blocks. The blocks of
a window are its lanes: rows are shuffled within each, and the window takes a row of every lane in turn. So a step is a
stratified sample of the window, and a rank that owns some lanes reads no other ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

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

    def __iter__(self) -> Iterator[WindowRows]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> WindowRows:
        """All rows of one window."""
        return self.rows(number, Ranks())

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
