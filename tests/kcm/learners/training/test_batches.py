"""The rows of a step are a function of seed, epoch and place, however many ranks share them and where a run resumes."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kcm.collaborator.collaborator import Collaborator, NetworkConfig
from kcm.collaborator.distill import DistillConfig
from kcm.learners.base import Batch, Learner
from kcm.learners.ranks import Ranks
from kcm.learners.training.closed_form import ClosedFormTrainer
from kcm.learners.training.config import TrainConfig
from kcm.learners.training.trainer import batches_of, shuffled_windows
from kcm.tasks.shards import GROUP_ROWS
from tests.kcm.learners.tasks import rows_of

KEY = (3, 1, 2)


class Streams:
    """Streams whose rows can be told apart, and the blocks that were read."""

    def __init__(self, *sizes: int) -> None:
        self.sizes = sizes
        self.blocks: Counter[tuple[int, int]] = Counter()

    def read(self, stream: int, start: int, stop: int) -> Batch:
        assert start < stop <= self.sizes[stream]
        self.blocks[stream, start] += 1
        rows = torch.arange(start, stop)
        return Batch(rows[:, None] + 1e5 * stream, rows, torch.zeros(len(rows), 2), torch.ones(len(rows)))

    def epoch(self, window: int, key=KEY, skipped: int = 0) -> list[Batch]:
        return list(shuffled_windows(self.read, self.sizes, window, key=key, skipped=skipped))


def numbers(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([batch.features[:, 0] for batch in batches])


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 3 * GROUP_ROWS), min_size=1, max_size=3), window=st.integers(1, 4))
def test_every_row_comes_once_an_epoch(sizes: list[int], window: int) -> None:
    """Every block is read once, and a window has at most `window` blocks."""
    streams = Streams(*sizes)
    windows = streams.epoch(window)
    rows = [row + 1e5 * stream for stream, size in enumerate(sizes) for row in range(size)]
    assert sorted(numbers(windows).tolist()) == rows
    assert all(len(part) <= window * GROUP_ROWS for part in windows)
    assert set(streams.blocks.values()) == {1}


def test_one_window_order_equals_earlier_versions() -> None:
    """Trained figures must not move without a reason: the order that was drawn as one list of blocks."""
    sizes = [2500, 1030]
    blocks = [(stream, start) for stream, size in enumerate(sizes) for start in range(0, size, GROUP_ROWS)]
    rng = np.random.default_rng(KEY)
    rng.shuffle(blocks)
    rows = [1e5 * s + row for s, start in blocks for row in range(start, min(start + GROUP_ROWS, sizes[s]))]
    assert numbers(Streams(*sizes).epoch(16)).tolist() == np.array(rows)[rng.permutation(len(rows))].tolist()


@pytest.mark.parametrize(("window", "size"), [(1, 700), (3, 64), (16, 20_000)])
def test_a_resumed_epoch_gives_the_rest_of_the_batches(window: int, size: int) -> None:
    """A batch may span windows, and windows that were used up are not read again."""
    sizes = (9 * GROUP_ROWS + 7, 13 * GROUP_ROWS, 5)
    batches = list(batches_of(Streams(*sizes).epoch(window), size))
    assert [len(batch) for batch in batches[:-1]] == [size] * (len(batches) - 1)
    for done in {0, 1, len(batches) // 2, len(batches) - 1}:
        late = Streams(*sizes)
        rest = list(batches_of(late.epoch(window, skipped=done * size), size))
        assert torch.equal(numbers(rest), numbers(batches[done:]))
        assert len(late.blocks) <= 24 - done * size // (window * GROUP_ROWS) * window


@pytest.mark.parametrize("world_size", [1, 2, 4, 16, 20])
@pytest.mark.parametrize("count", [7, 64, 700])
def test_ranks_share_the_rows_of_a_step_once(count: int, world_size: int) -> None:
    """No rank is without a row, and all have equally many."""
    shares = [Ranks(rank, world_size).share(torch.arange(count)) for rank in range(world_size)]
    assert {len(index) for index, _ in shares} == {-(-count // world_size)}
    assert torch.equal(torch.cat([index[weights > 0] for index, weights in shares]), torch.arange(count))


class Recorded(Learner):
    """A closed form that records the rows that it is given."""

    closed_form, chunk_size = True, 700

    def __init__(self) -> None:
        self.chunks: list[torch.Tensor] = []

    def tasks_to_stream(self, task: int) -> range:
        return range(task + 1)

    def absorb(self, collaborator, batch, distill, ranks) -> None:
        self.chunks.append(batch.features[batch.weights > 0])


@pytest.mark.parametrize("world_size", [1, 3])
def test_closed_form_reads_rows_once_in_file_order(large_tasks, monkeypatch, world_size) -> None:
    """Promise: a closed form reads the rows as the files have them, each once, whatever the number of ranks."""
    monkeypatch.setattr(Ranks, "sum_", lambda self, tensors: None)
    learners = [Recorded() for _ in range(world_size)]
    for rank, learner in enumerate(learners):
        collaborator = Collaborator(64, 10, NetworkConfig(hidden=()), "kan", seed=0)
        options = {"seed": 0, "ranks": Ranks(rank, world_size)}
        ClosedFormTrainer(collaborator, learner, large_tasks, TrainConfig(), DistillConfig(), **options).run()
    chunks = torch.cat([share for shares in zip(*(each.chunks for each in learners), strict=True) for share in shares])
    first, second = (rows_of([task], "train").features for task in large_tasks)
    assert torch.equal(chunks, torch.cat([first, first, second]))
