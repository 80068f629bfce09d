"""Caps keep groups whole and nest; the long tail has the sizes of its formula."""

from __future__ import annotations

import itertools

import pytest
from pydantic import ValidationError

from kcm.errors import DataError
from kcm.tasks.sampling import LongTailConfig, cap_rows, cut_tail, head_to_tail, long_tail_sizes


def test_a_cap_keeps_whole_groups_in_their_old_order(rows_of):
    rows = rows_of([f"text {i}" for i in range(90)], group=[f"document {i // 3}" for i in range(90)])
    kept = cap_rows(rows, 40, seed=0, task="t")
    assert len(kept) == 39
    assert [int(row.id) for row in kept] == sorted(int(row.id) for row in kept)
    groups = {row.group for row in kept}
    assert len(kept) == sum(row.group in groups for row in rows)


def test_a_smaller_cap_gives_a_subset_of_a_larger_one(rows_of):
    rows = rows_of([f"text {i}" for i in range(200)], group=[f"document {i * i % 37}" for i in range(200)])
    kept = [{row.id for row in cap_rows(rows, limit, seed=1, task="t")} for limit in range(60, 200, 10)]
    assert all(small <= large for small, large in itertools.pairwise(kept))
    assert len(kept[0]) < len(kept[-1])


def test_a_cap_above_the_number_of_rows_keeps_them_all(rows_of):
    rows = rows_of(["a", "b"])
    assert cap_rows(rows, 2, seed=0, task="t") == rows


def test_a_cap_smaller_than_a_group_is_refused(rows_of):
    rows = rows_of(["a", "b", "c"], group=["d", "d", "d"])
    with pytest.raises(DataError, match=r"max_rows_per_task = 2 .* task 'mail'"):
        cap_rows(rows, 2, seed=0, task="mail")


@pytest.mark.parametrize(
    ("largest", "num_classes", "factor", "sizes"),
    [
        (100, 3, 100, [100, 10, 1]),
        (500, 5, 16, [500, 250, 125, 62, 31]),
        (100, 4, 1, [100, 100, 100, 100]),
        (10, 3, 1000, [10, 1, 1]),
        (7, 1, 50, [7]),
    ],
)
def test_sizes_of_the_long_tail(largest, num_classes, factor, sizes):
    assert long_tail_sizes(largest, num_classes, factor) == sizes


def test_cifar_100_lt_has_its_published_number_of_rows():
    # With imbalance factor 100 it has 10,847 train images (Cao et al., LDAM, 2019), sizes cut instead of rounded.
    assert sum(long_tail_sizes(500, 100, 100)) == pytest.approx(10_847, abs=100)


def test_the_head_comes_first_last_or_anywhere():
    stream = tuple("abcdef")
    assert head_to_tail(stream, LongTailConfig(order="head_first"), 0) == stream
    assert head_to_tail(stream, LongTailConfig(order="tail_first"), 0) == stream[::-1]
    drawn = {head_to_tail(stream, LongTailConfig(order="shuffled"), seed) for seed in range(10)}
    assert len(drawn) > 5
    assert all(sorted(order) == list(stream) for order in drawn)


def test_cutting_keeps_so_many_rows_of_each_label_and_nests(rows_of):
    rows = rows_of([f"text {i}" for i in range(60)], list("abc") * 20)
    small, large = ({row.id for row in cut_tail(rows, {"a": a, "b": 2, "c": 100}, seed=0)} for a in (5, 9))
    assert small < large
    kept = cut_tail(rows, {"a": 5, "b": 2, "c": 100}, seed=0)
    assert [sum(row.label == label for row in kept) for label in "abc"] == [5, 2, 20]
    assert [int(row.id) for row in kept] == sorted(int(row.id) for row in kept)


def test_an_imbalance_factor_under_1_is_refused():
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        LongTailConfig(imbalance_factor=0.5)
