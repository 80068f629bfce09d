"""The rows of a step are a function of epoch and place, however they are read; orders need no list of all rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.learners.base import Batch
from kcm.learners.training.order import ROWS_PER_GROUP, Permutation, TrainOrder
from kcm.learners.training.windows import Windows


@given(size=st.integers(1, 5000), key=st.integers(0, 9))
@settings(max_examples=30)
def test_a_permutation_is_one_and_knows_its_inverse(size: int, key: int) -> None:
    permutation = Permutation(size, [key, 1])
    numbers = permutation(np.arange(size))
    assert np.array_equal(np.sort(numbers), np.arange(size))
    assert np.array_equal(permutation.places_of(numbers), np.arange(size))


def test_places_far_apart_are_computed_alone() -> None:
    permutation = Permutation(10**9 // ROWS_PER_GROUP, [0])
    assert np.array_equal(permutation(np.array([5, 900_000])), permutation(np.arange(900_001))[[5, 900_000]])


def test_windows_begin_where_the_rows_before_them_end() -> None:
    """Short blocks, the last one of each stream, lie anywhere."""
    order = TrainOrder([100_000, 70_123, 5], seed=1, task=0, epoch=0, window=4)
    assert np.array_equal(np.cumsum([0, *(len(streams) for streams, _ in order)]), order.starts)


def test_the_order_of_a_task_of_one_window_is_that_of_earlier_versions() -> None:
    """Trained figures must not move where nothing has to: the order that was drawn as one list of blocks."""
    sizes, key = [2500, 1030], [3, 1, 2]
    blocks = [(stream, start) for stream, size in enumerate(sizes) for start in range(0, size, ROWS_PER_GROUP)]
    rng = np.random.default_rng(key)
    rng.shuffle(blocks)
    lengths = [min(ROWS_PER_GROUP, sizes[stream] - start) for stream, start in blocks]
    streams = np.repeat([stream for stream, _ in blocks], lengths)
    positions = np.concatenate([np.arange(start, start + n) for (_, start), n in zip(blocks, lengths, strict=True)])
    shuffled = rng.permutation(len(positions))
    ((found_streams, found_positions),) = TrainOrder(sizes, seed=3, task=1, epoch=2, window=16)
    assert np.array_equal(found_streams, streams[shuffled])
    assert np.array_equal(found_positions, positions[shuffled])


def numbered(sizes: list[int]) -> list[Batch]:
    """Streams whose rows can be distinguished."""
    return [
        Batch(
            torch.arange(size)[:, None].float() + 1e5 * stream,
            torch.arange(size),
            torch.zeros(size, 2),
            torch.ones(size),
        )
        for stream, size in enumerate(sizes)
    ]


@pytest.mark.parametrize("window", [1, 3, 16])
def test_every_slice_of_an_epoch_has_the_rows_of_the_order_at_its_places(window: int) -> None:
    sizes = [5000, 1500]
    streams, read = numbered(sizes), []

    def read_rows(stream: int, start: int, stop: int) -> Batch:
        read.append((stream, start, stop))
        return streams[stream].take(torch.arange(start, stop), torch.ones(stop - start))

    def order(epoch: int) -> TrainOrder:
        return TrainOrder(sizes, seed=0, task=0, epoch=epoch, window=window)

    windows = Windows(order, read_rows, 2)
    for epoch in (0, 1):
        chosen = [torch.stack(part, 1) for part in order(epoch)]
        expected = torch.cat(chosen)
        for start in range(0, 6500, 700):
            stop = min(start + 700, 6500)
            rows = windows.rows(epoch, torch.arange(start, stop))
            assert torch.equal(rows.features[:, 0], expected[start:stop, 1] + 1e5 * expected[start:stop, 0])
    # A reader that comes in the middle, as after a restart, gets the same rows.
    late = Windows(order, read_rows, 2).rows(1, torch.arange(3000, 3010))
    assert torch.equal(late.labels, windows.rows(1, torch.arange(3000, 3010)).labels)
    assert max(stop - start for _, start, stop in read) <= max(window, 1) * ROWS_PER_GROUP
