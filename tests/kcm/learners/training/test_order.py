"""An epoch has every train row once, in an order that the seed alone decides; ranks share out the lanes of a window."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.learners.training.order import ROWS_PER_GROUP, TrainOrder


def rows_of(order: TrainOrder) -> list[tuple[int, int]]:
    """Stream and position of all rows of an epoch, in their order."""
    return [pair for part in order for pair in zip(part.streams.tolist(), part.positions.tolist(), strict=True)]


@settings(max_examples=25)
@given(
    sizes=st.lists(st.integers(1, 3 * ROWS_PER_GROUP), min_size=1, max_size=3),
    window=st.integers(1, 4),
    epoch=st.integers(0, 3),
)
def test_every_row_comes_once_an_epoch(sizes: list[int], window: int, epoch: int) -> None:
    order = TrainOrder(sizes, seed=1, task=0, epoch=epoch, window=window)
    assert sorted(rows_of(order)) == [(stream, row) for stream, size in enumerate(sizes) for row in range(size)]
    assert all(len(part) <= window * ROWS_PER_GROUP for part in order)
    assert all(np.array_equal(part.places, np.arange(len(part))) for part in order)


def test_the_order_changes_with_epoch_task_and_seed_only() -> None:
    def order(**changes: int) -> tuple[tuple[int, int], ...]:
        return tuple(rows_of(TrainOrder([5000], **({"seed": 0, "task": 0, "epoch": 0, "window": 2} | changes))))

    assert order() == order()
    assert len({order(**change) for change in ({}, {"seed": 1}, {"task": 1}, {"epoch": 1})}) == 4


def test_full_block_window_takes_rows_in_turn_and_shuffles() -> None:
    """Promise: a window of full blocks takes a row of each in turn and shuffles them."""
    for part in TrainOrder([24 * ROWS_PER_GROUP], seed=0, task=0, epoch=0, window=8):
        blocks = (part.positions // ROWS_PER_GROUP).reshape(-1, 8)
        assert (blocks == blocks[0]).all()
        assert len(set(blocks[0].tolist())) == 8
        within = (part.positions % ROWS_PER_GROUP).reshape(-1, 8)
        orders = {tuple(lane) for lane in within.T.tolist()}
        assert len(orders) == 8
        assert tuple(range(ROWS_PER_GROUP)) not in orders


def test_a_short_block_is_spread_over_its_window() -> None:
    """Of 300 rows among three times 1,024, every twentieth of the window has its share, up to one row."""
    sizes = [3 * ROWS_PER_GROUP + 300, 16 * ROWS_PER_GROUP]
    order = TrainOrder(sizes, seed=0, task=0, epoch=0, window=4)
    part = next(part for part in order if len(part) == 3 * ROWS_PER_GROUP + 300)
    is_short = (part.streams == 0) & (part.positions >= 3 * ROWS_PER_GROUP)
    counts = [int(twentieth.sum()) for twentieth in np.array_split(is_short, 20)]
    assert sum(counts) == 300
    assert set(counts) <= {14, 15, 16}


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
    (found,) = TrainOrder(sizes, seed=3, task=1, epoch=2, window=16)
    assert np.array_equal(found.streams, streams[shuffled])
    assert np.array_equal(found.positions, positions[shuffled])
