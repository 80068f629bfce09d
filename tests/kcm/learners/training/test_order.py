"""The rows of a step are a function of seed, epoch and place, however many ranks share them."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.learners.training.order import ROWS_PER_GROUP, FileOrder, TrainOrder, WindowRows, Windows

BIG = [9 * ROWS_PER_GROUP + 7, 13 * ROWS_PER_GROUP, 5]
SIZES = [[5000, 1500], [300], BIG]


def windows_of(order: TrainOrder) -> list[WindowRows]:
    return [order.rows(number) for number in range(len(order))]


def rows_of(order: TrainOrder) -> list[tuple[int, int]]:
    """Stream and position of all rows of an epoch, in their order."""
    return [
        pair for part in windows_of(order) for pair in zip(part.streams.tolist(), part.positions.tolist(), strict=True)
    ]


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 3 * ROWS_PER_GROUP), min_size=1, max_size=3),
    window=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(sizes: list[int], window: int, epoch: int) -> None:
    order = TrainOrder(sizes, seed=1, task=0, epoch=epoch, window=window)
    assert sorted(rows_of(order)) == [(stream, row) for stream, size in enumerate(sizes) for row in range(size)]
    assert all(len(part) <= window * ROWS_PER_GROUP for part in windows_of(order))
    assert np.array_equal(np.diff(order.starts), [len(part) for part in windows_of(order)])


def test_the_order_changes_with_epoch_task_and_seed_only() -> None:
    def order(**changes: int) -> tuple[tuple[int, int], ...]:
        return tuple(rows_of(TrainOrder([5000], **({"seed": 0, "task": 0, "epoch": 0, "window": 2} | changes))))

    assert order() == order()
    assert len({order(**change) for change in ({}, {"seed": 1}, {"task": 1}, {"epoch": 1})}) == 4


def test_one_window_order_equals_earlier_versions() -> None:
    """Trained figures must not move where nothing has to: the order that was drawn as one list of blocks."""
    sizes, key = [2500, 1030], [3, 1, 2]
    blocks = [(stream, start) for stream, size in enumerate(sizes) for start in range(0, size, ROWS_PER_GROUP)]
    rng = np.random.default_rng(key)
    rng.shuffle(blocks)
    lengths = [min(ROWS_PER_GROUP, sizes[stream] - start) for stream, start in blocks]
    streams = np.repeat([stream for stream, _ in blocks], lengths)
    positions = np.concatenate([np.arange(start, start + n) for (_, start), n in zip(blocks, lengths, strict=True)])
    shuffled = rng.permutation(len(positions))
    (found,) = windows_of(TrainOrder(sizes, seed=3, task=1, epoch=2, window=16))
    assert np.array_equal(found.streams, streams[shuffled])
    assert np.array_equal(found.positions, positions[shuffled])


class Streams:
    """Streams whose rows can be distinguished, and the blocks that were read of them."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.blocks: Counter[tuple[int, int]] = Counter()

    def read(self, stream: int, start: int, stop: int) -> Batch:
        assert start % ROWS_PER_GROUP == 0
        assert stop <= self.sizes[stream]
        self.blocks.update((stream, block) for block in range(start // ROWS_PER_GROUP, -(-stop // ROWS_PER_GROUP)))
        return self.rows(stream, start, stop)

    def rows(self, stream: int, start: int, stop: int) -> Batch:
        """Any rows of a stream, without a count of the blocks."""
        rows = torch.arange(start, stop)
        return Batch(rows[:, None] + 1e5 * stream, rows, torch.zeros(len(rows), 2), torch.ones(len(rows)))

    def windows(self, window: int, ranks: Ranks | None = None) -> Windows:
        return Windows(lambda epoch: self.order(epoch, window), self.read, ranks)

    def order(self, epoch: int, window: int) -> TrainOrder:
        return TrainOrder(self.sizes, seed=0, task=0, epoch=epoch, window=window)

    def expected(self, epoch: int, window: int) -> torch.Tensor:
        """The rows of an epoch, in their order."""
        parts = [part.positions + 1e5 * part.streams for part in windows_of(self.order(epoch, window))]
        return torch.from_numpy(np.concatenate(parts)).float()

    def steps(self, size: int) -> list[tuple[int, int]]:
        total = sum(self.sizes)
        return list(pairwise([*range(0, total, size), total]))


def real(share: Batch) -> torch.Tensor:
    """The rows of a share that are no padding."""
    assert set(share.weights.tolist()) <= {0.0, 1.0}
    return share.features[share.weights > 0, 0]


@pytest.mark.parametrize("window", [1, 3, 16])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_rank_has_the_rows_of_each_step(sizes: list[int], window: int) -> None:
    """Promise: one rank has the rows of the order at the places of a step."""
    streams = Streams(sizes)
    windows = streams.windows(window)
    for epoch in (0, 1):
        expected = streams.expected(epoch, window)
        for first, stop in streams.steps(700):
            assert torch.equal(windows.share(epoch, first, stop).features[:, 0], expected[first:stop])


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 16, 20])
@pytest.mark.parametrize("size", [7, 64, 700, 20_000])
@pytest.mark.parametrize(("sizes", "window"), [([5000, 1500], 2), ([5000, 1500], 3), ([300], 16), (BIG, 16)], ids=str)
def test_ranks_split_the_rows_of_a_step_once(sizes: list[int], window: int, size: int, world_size: int) -> None:
    """Promise: the rows of step s are a function of s alone; no rank is without a row."""
    streams = Streams(sizes)
    ranks = [streams.windows(window, Ranks(rank, world_size)) for rank in range(world_size)]
    expected = streams.expected(0, window)
    for first, stop in streams.steps(size)[: 200 if size < 64 else None]:
        shares = [windows.share(0, first, stop) for windows in ranks]
        assert all(len(share) for share in shares)
        assert torch.equal(torch.cat([real(share) for share in shares]), expected[first:stop])


def test_every_block_is_read_once_an_epoch() -> None:
    """Promise: the steps of an epoch read every block once, although a step may need two windows."""
    streams = Streams([37 * ROWS_PER_GROUP + 5])
    windows = streams.windows(8)
    for epoch in range(2):
        for first, stop in streams.steps(640):
            windows.share(epoch, first, stop)
    assert streams.blocks == Counter({(0, block): 2 for block in range(38)})


@pytest.mark.parametrize("world_size", [1, 3])
def test_late_reader_gets_the_same_rows_in_order(world_size: int) -> None:
    """Promise: a reader that comes in the middle has the same rows in the same order."""
    streams, ranks = Streams([5000, 1500]), Ranks(world_size - 1, world_size)
    early = streams.windows(3, ranks)
    for epoch in (0, 1):
        for first, stop in streams.steps(700):
            late = streams.windows(3, ranks).share(epoch, first, stop)
            assert torch.equal(late.features, early.share(epoch, first, stop).features)


@pytest.mark.parametrize("world_size", [1, 3])
def test_file_order_gives_every_row_once(world_size: int) -> None:
    """Promise: a closed form reads the rows as the files have them, each once, whatever the number of ranks."""
    sizes = [1500, 1, 2049]
    orders = [FileOrder(sizes, Streams(sizes).rows, Ranks(rank, world_size)) for rank in range(world_size)]
    steps = list(pairwise([*range(0, sum(sizes), 700), sum(sizes)]))
    rows = torch.cat([real(order.share(0, first, stop)) for first, stop in steps for order in orders])
    assert torch.equal(rows, torch.cat([torch.arange(size) + 1e5 * stream for stream, size in enumerate(sizes)]))
