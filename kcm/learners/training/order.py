"""The order of train rows in an epoch: a function of the seed, of which any part is computed alone.

Blocks of ROWS_PER_GROUP rows come in the order of a keyed permutation, some of them at a time as a window, so that a
reader needs one window in memory and nobody needs the order of all rows. The blocks of a window are its lanes: rows are
shuffled within each, and the window takes a row of every lane in turn. So a step is a stratified sample of the window,
and a rank that owns some lanes reads no other ones. The permutation is a Feistel network with cycle walking: Black and
Rogaway, Ciphers with arbitrary finite domains (CT-RSA 2002), section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from kcm.learners.ranks import Ranks

ROWS_PER_GROUP = 1024  # rows of one Parquet row group: the unit of reading
_ROUNDS = 6


class Permutation:
    """A keyed permutation of 0..size-1, computed place by place."""

    def __init__(self, size: int, key: Sequence[int]) -> None:
        self.size = size
        self._half = max(1, (max(size - 1, 1).bit_length() + 1) // 2)  # bits of each half of a number
        self._mask = np.uint64((1 << self._half) - 1)
        seeds = np.random.SeedSequence(key).generate_state(2 * _ROUNDS, np.uint64)
        self._keys = list(zip(seeds[:_ROUNDS] | np.uint64(1), seeds[_ROUNDS:], strict=True))

    def __call__(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """The numbers at these places, [N]."""
        return self._walk(places, self._forward)

    def places_of(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of these numbers, [N]: the inverse."""
        return self._walk(numbers, self._backward)

    def _walk(self, given: NDArray[np.int64], step: object) -> NDArray[np.int64]:
        """Apply `step` until every value lies in the range: each is on a cycle that comes back to it."""
        values = np.asarray(given).astype(np.uint64)
        outside = np.ones(len(values), dtype=bool)
        while outside.any():
            values[outside] = step(values[outside])  # type: ignore[operator]
            outside = values >= np.uint64(self.size)
        return values.astype(np.int64)

    def _forward(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> np.uint64(self._half), values & self._mask
        for multiplier, addend in self._keys:
            left, right = right, left ^ self._mixed(right, multiplier, addend)
        return np.asarray((left << np.uint64(self._half)) | right)

    def _backward(self, values: NDArray[np.uint64]) -> NDArray[np.uint64]:
        left, right = values >> np.uint64(self._half), values & self._mask
        for multiplier, addend in reversed(self._keys):
            left, right = right ^ self._mixed(left, multiplier, addend), left
        return np.asarray((left << np.uint64(self._half)) | right)

    def _mixed(self, half: NDArray[np.uint64], multiplier: np.uint64, addend: np.uint64) -> NDArray[np.uint64]:
        """A round's function: the finaliser of MurmurHash3 on the half and the round's key; numbers wrap around."""
        value = half * multiplier + addend
        value = (value ^ (value >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
        return np.asarray((value ^ (value >> np.uint64(33))) & self._mask)


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
        self._permutation = Permutation(max(1, self._num_blocks), self._key)

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
        starts = np.minimum(np.arange(len(self) + 1) * self._window, self._num_blocks) * ROWS_PER_GROUP
        if self.has_one_window:
            return np.array([0, sum(self.sizes)])
        short = [stream for stream, size in enumerate(self.sizes) if size % ROWS_PER_GROUP]
        lasts = self._firsts[1:][short] - 1  # the blocks that hold fewer rows: the last one of a stream
        places = self._permutation.places_of(lasts)
        for stream, place in zip(short, places.tolist(), strict=True):
            starts[place // self._window + 1 :] -= ROWS_PER_GROUP - self.sizes[stream] % ROWS_PER_GROUP
        return starts

    def window_at(self, row: int) -> int:
        """The window that holds the row at this place of the epoch."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _shuffled(self) -> WindowRows:
        """The rows of the only window, as they came before there were lanes."""
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
        blocks = np.arange(number * self._window, min((number + 1) * self._window, self._num_blocks))
        streams, starts, lengths = self._extents(self._permutation(blocks))
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
