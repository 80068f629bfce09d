"""The rows of a step are a function of epoch and place, however many ranks share them; each reads its own blocks."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
import torch

from kcm.learners.base import Batch
from kcm.learners.ranks import Ranks
from kcm.learners.training.order import ROWS_PER_GROUP, TrainOrder
from kcm.learners.training.windows import Windows

BIG = [9 * ROWS_PER_GROUP + 7, 13 * ROWS_PER_GROUP, 5]
SIZES = [[5000, 1500], [300], BIG]


class Streams:
    """Streams whose rows can be distinguished, and the blocks that were read of them."""

    def __init__(self, sizes: list[int]) -> None:
        self.sizes = sizes
        self.blocks: Counter[tuple[int, int]] = Counter()

    def read(self, stream: int, start: int, stop: int) -> Batch:
        assert start % ROWS_PER_GROUP == 0
        assert stop <= self.sizes[stream]
        self.blocks.update((stream, block) for block in range(start // ROWS_PER_GROUP, -(-stop // ROWS_PER_GROUP)))
        rows = torch.arange(start, stop)
        return Batch(rows[:, None] + 1e5 * stream, rows, torch.zeros(len(rows), 2), torch.ones(len(rows)))

    def windows(self, window: int, ranks: Ranks | None = None) -> Windows:
        return Windows(lambda epoch: self.order(epoch, window), self.read, ranks)

    def order(self, epoch: int, window: int) -> TrainOrder:
        return TrainOrder(self.sizes, seed=0, task=0, epoch=epoch, window=window)

    def expected(self, epoch: int, window: int) -> torch.Tensor:
        """The rows of an epoch, in their order."""
        parts = [part.positions + 1e5 * part.streams for part in self.order(epoch, window)]
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
        assert torch.equal(
            torch.cat([real(share) for share in shares]).sort().values, expected[first:stop].sort().values
        )


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 16])
def test_a_rank_reads_its_own_blocks_once_an_epoch(world_size: int) -> None:
    """Promise: together the ranks read a large task once an epoch, however many they are."""
    sizes, epochs = [64 * ROWS_PER_GROUP], 2
    blocks = []
    for rank in range(world_size):
        streams = Streams(sizes)
        windows = streams.windows(16, Ranks(rank, world_size))
        for epoch in range(epochs):
            for first, stop in streams.steps(640):
                windows.share(epoch, first, stop)
        blocks.append(streams.blocks)
    together = sum(blocks, Counter[tuple[int, int]]())
    assert together == Counter({(0, block): epochs for block in range(64)})
    assert {mine.total() for mine in blocks} <= {
        epochs * 4 * lanes for lanes in (16 // world_size, -(-16 // world_size))
    }


@pytest.mark.parametrize("world_size", [1, 3])
def test_late_reader_gets_the_same_rows_in_order(world_size: int) -> None:
    """Promise: a reader that comes in the middle has the same rows in the same order."""
    streams, ranks = Streams([5000, 1500]), Ranks(world_size - 1, world_size)
    early = streams.windows(3, ranks)
    for epoch in (0, 1):
        for first, stop in streams.steps(700):
            late = streams.windows(3, ranks).share(epoch, first, stop)
            assert torch.equal(late.features, early.share(epoch, first, stop).features)
