"""Caps keep groups whole and nest; the long tail has the sizes of its formula."""

from __future__ import annotations

from collections import Counter

import pytest

from kcm.errors import DataError
from kcm.tasks import SPLITS
from kcm.tasks.plan.sampling import long_tail_sizes


def test_a_cap_keeps_whole_groups_in_their_old_order_and_nests(write_csv, build):
    rows = [(f"text {i}", "ab"[i % 2], f"document {i // 3}") for i in range(900)]
    path = write_csv(rows, ("text", "label", "document"))
    found = []
    for limit in (301, 601):
        sequence = build(path, num_tasks=1, max_rows_per_task=limit, source={"group_column": "document"})
        rows = sequence.tasks[0].rows.to_pydict()
        found.append(set(rows["id"]))
        assert len(found[-1]) == limit - 1  # a group of three does not fit any more
        assert set(Counter(rows["group"]).values()) == {3}
        for split in SPLITS:
            of_split = sequence.tasks[0].splits[split]["id"].to_pylist()
            numbers = [int(row.removeprefix("data-")) for row in of_split]
            assert numbers == sorted(numbers)
    assert found[0] < found[1]


def test_a_cap_smaller_than_a_group_is_refused(write_csv, build):
    path = write_csv([(f"text {i}", "ab"[i % 2], "one") for i in range(40)], ("text", "label", "document"))
    with pytest.raises(DataError, match=r"max_rows_per_task = 20 .* task 'task-1'"):
        build(path, num_tasks=1, max_rows_per_task=20, source={"group_column": "document"})


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
