"""The order of train rows in an epoch: a function of the seed, of which any part is computed alone.

Blocks of ROWS_PER_GROUP rows come in the order of a keyed permutation, and rows are shuffled within windows of some
blocks, so that a reader needs one window in memory and nobody needs the order of all rows. The permutation is a Feistel
network with cycle walking: Black and Rogaway, Ciphers with arbitrary finite domains (CT-RSA 2002), section 5.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


class TrainOrder:
    """The order of one epoch over `sizes[k]` train rows of stream k, window by window.

    A sequence of windows, each a pair of equally long tensors: stream, position. `starts` are the places in the epoch
    of the windows' first rows, and of its end.
    """

    def __init__(self, sizes: Sequence[int], *, seed: int, task: int, epoch: int, window: int) -> None:
        self._sizes, self._window, self._key = list(sizes), window, [seed, task, epoch]
        counts = [-(-size // ROWS_PER_GROUP) for size in sizes]
        self._firsts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        self.num_blocks = int(self._firsts[-1])
        self._permutation = Permutation(max(1, self.num_blocks), self._key)

    def __len__(self) -> int:
        """Windows of the epoch."""
        return -(-self.num_blocks // self._window)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        """Stream and position of the rows of one window, in their order."""
        blocks, rng = self._blocks(number)
        streams, positions = self._rows(blocks)
        shuffled = rng.permutation(len(positions))
        return torch.from_numpy(streams[shuffled]), torch.from_numpy(positions[shuffled])

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """The place of the first row of every window, and the number of rows, [len + 1]."""
        starts = np.minimum(np.arange(len(self) + 1) * self._window, self.num_blocks) * ROWS_PER_GROUP
        if len(self) == 1:
            return np.array([0, sum(self._sizes)])
        short = [stream for stream, size in enumerate(self._sizes) if size % ROWS_PER_GROUP]
        lasts = self._firsts[1:][short] - 1  # the blocks that hold fewer rows: the last one of a stream
        places = self._permutation.places_of(lasts)
        for stream, place in zip(short, places.tolist(), strict=True):
            starts[place // self._window + 1 :] -= ROWS_PER_GROUP - self._sizes[stream] % ROWS_PER_GROUP
        return starts

    def window_at(self, row: int) -> int:
        """The window that holds the row at this place of the epoch."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def _blocks(self, number: int) -> tuple[NDArray[np.int64], np.random.Generator]:
        """The blocks of a window in their order, and what shuffles its rows."""
        if len(self) == 1:  # all rows are shuffled anyway; so it was before there were windows of their own
            rng = np.random.default_rng(self._key)
            blocks = list(range(self.num_blocks))
            rng.shuffle(blocks)
            return np.array(blocks), rng
        places = np.arange(number * self._window, min((number + 1) * self._window, self.num_blocks))
        return self._permutation(places), np.random.default_rng([*self._key, number])

    def _rows(self, blocks: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream and position of all rows of some blocks."""
        streams = np.searchsorted(self._firsts, blocks, side="right") - 1
        starts = (blocks - self._firsts[streams]) * ROWS_PER_GROUP
        lengths = np.minimum(ROWS_PER_GROUP, np.array(self._sizes)[streams] - starts)
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return np.repeat(streams, lengths), np.repeat(starts, lengths) + within
