"""The memory keeps the same rows however they were split among workers, in whatever order they came."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from kcm.learners.memory import Memory, MemoryRow, select
from kcm.tasks.hashing import row_key


def row(number: int, *, task: int = 0, label: int = 0, seed: int = 0) -> MemoryRow:
    row_id = f"row-{task}-{label}-{number}"
    features = np.array([number, task], dtype=np.float32)
    return MemoryRow(row_key(seed, row_id), row_id, task, label, features, np.full(2, np.nan, dtype=np.float32))


def ids(memory: Memory) -> list[str]:
    return [row.id for row in memory.rows]


sizes = st.lists(st.integers(0, 30), min_size=1, max_size=6)


@settings(max_examples=60)
@given(sizes=sizes, capacity=st.integers(0, 40), parts=st.integers(1, 5), seed=st.integers(0, 1000))
def test_sketches_of_parts_merge_into_the_sketch_of_the_whole(sizes, capacity, parts, seed) -> None:
    rows = [row(n, task=group % 3, label=group) for group, size in enumerate(sizes) for n in range(size)]
    whole = Memory(capacity, seed=0, rows=rows)
    shuffled = rows.copy()
    random.Random(seed).shuffle(shuffled)
    merged = Memory(capacity, seed=0)
    for part in range(parts):
        merged.add(Memory(capacity, seed=0, rows=shuffled[part::parts]).rows)
    assert ids(merged) == ids(whole)


@settings(max_examples=60)
@given(sizes=sizes, capacity=st.integers(0, 200))
def test_capacity_is_used_up_and_shared_as_evenly_as_the_groups_allow(sizes, capacity) -> None:
    groups = [(0, group) for group, size in enumerate(sizes) for _ in range(size)]
    keys = list(range(len(groups)))
    random.Random(0).shuffle(keys)
    kept = select(keys, groups, capacity)
    counts = [sum(groups[i] == (0, group) for i in kept) for group in range(len(sizes))]
    assert sum(counts) == min(capacity, sum(sizes))
    # No group may be poorer by more than one than another, unless it has given all that it has.
    assert all(poor >= rich - 1 or poor == size for poor, size in zip(counts, sizes, strict=True) for rich in counts)


def test_the_smallest_keys_of_a_group_are_the_ones_that_stay() -> None:
    assert select([5, 1, 9, 3], [(0, 0)] * 4, 2) == [1, 3]


def test_every_row_is_equally_likely_to_be_remembered() -> None:
    counts = np.zeros(20)
    for seed in range(400):
        memory = Memory(5, seed, [row(n, seed=seed) for n in range(20)])
        counts[[int(each.id.split("-")[-1]) for each in memory.rows]] += 1
    assert counts.sum() == 2000
    assert chisquare(counts).pvalue > 0.001


def test_offering_a_row_twice_changes_nothing() -> None:
    memory = Memory(4, 0, [row(n) for n in range(10)])
    before = ids(memory)
    memory.add(memory.rows)
    assert ids(memory) == before


def test_a_memory_survives_its_state_dict(tmp_path) -> None:
    memory = Memory(6, 0, [row(n, task=n % 2, label=n % 3) for n in range(30)])
    torch.save(memory.state_dict(), tmp_path / "memory.pt")
    restored = Memory(6, 0)
    restored.load_state_dict(torch.load(tmp_path / "memory.pt", weights_only=True))
    assert ids(restored) == ids(memory)
    assert [each.group for each in restored.rows] == [each.group for each in memory.rows]
    assert torch.equal(restored.tensors()["features"], memory.tensors()["features"])


@pytest.mark.parametrize("capacity", [0, 3])
def test_an_empty_memory_survives_its_state_dict(capacity) -> None:
    restored = Memory(capacity, 0, [row(1)])
    restored.load_state_dict(Memory(capacity, 0).state_dict())
    assert len(restored) == 0
