"""The memory keeps the same rows however they were split among workers, in whatever order they came."""

import random

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from kcm.learners.base import Batch
from kcm.learners.replay import Memory, select

Row = tuple[int, int, int]  # number, task and label


def offer(memory: Memory, rows: list[Row]) -> Memory:
    if rows:
        columns, nothing = torch.tensor(rows), torch.full((len(rows), 2), torch.nan)
        batch = Batch(columns[:, :2].float(), columns[:, 2], nothing, torch.ones(len(rows)))
        ids = [f"row-{task}-{label}-{number}" for number, task, label in rows]
        memory.add(ids, columns[:, 1].tolist(), batch)
    return memory


def merge(memory: Memory, other: Memory) -> None:
    if other.rows is not None:
        memory.add(other.ids, other.tasks, other.rows)


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=6)


@settings(max_examples=60)
@given(sizes=sizes, capacity=st.integers(0, 40), parts=st.integers(1, 5), seed=st.integers(0, 1000))
def test_sketches_of_parts_merge_into_the_sketch_of_the_whole(sizes, capacity, parts, seed) -> None:
    rows = [(n, group % 3, group) for group, size in enumerate(sizes) for n in range(size)]
    whole = offer(Memory(capacity, seed=0), rows)
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)
    merged = Memory(capacity, seed=0)
    for part in range(parts):
        merge(merged, offer(Memory(capacity, seed=0), shuffled[part::parts]))
    assert merged.ids == whole.ids


@settings(max_examples=60)
@given(sizes=sizes, capacity=st.integers(0, 200))
def test_capacity_is_used_and_shared_evenly(sizes, capacity) -> None:
    groups = [(0, group) for group, size in enumerate(sizes) for _ in range(size)]
    keys = list(range(len(groups)))
    random.Random(0).shuffle(keys)
    kept = select(keys, groups, capacity)
    counts = [sum(groups[i] == (0, group) for i in kept) for group in range(len(sizes))]
    assert sum(counts) == min(capacity, sum(sizes))
    # No group may be poorer by more than one than another, unless it has given all that it has.
    assert all(poor >= rich - 1 or poor == size for poor, size in zip(counts, sizes, strict=True) for rich in counts)


def test_every_row_is_equally_likely_to_be_remembered() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        memory = offer(Memory(5, seed), [(n, 0, 0) for n in range(20)])
        counts[[int(row_id.split("-")[-1]) for row_id in memory.ids]] += 1
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 0.001


def test_a_memory_survives_its_state_dict(tmp_path) -> None:
    memory = offer(Memory(6, 0), [(n, n % 2, n % 3) for n in range(30)])
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    restored = Memory(6, 0)
    restored.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert (restored.ids, restored.tasks) == (memory.ids, memory.tasks)
    assert torch.equal(restored.rows.features, memory.rows.features)
    assert torch.equal(restored.rows.labels, memory.rows.labels)


def test_offering_a_row_twice_changes_nothing() -> None:
    memory = offer(Memory(4, 0), [(n, 0, 0) for n in range(10)])
    before = memory.ids
    merge(memory, memory)
    assert memory.ids == before


def test_an_empty_memory_survives_its_state_dict() -> None:
    restored = offer(Memory(3, 0), [(1, 0, 0)])
    restored.load_state_dict(Memory(3, 0).state_dict())
    assert (len(restored), restored.rows) == (0, None)
