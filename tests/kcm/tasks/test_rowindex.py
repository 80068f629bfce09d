"""An index tells where splits are, across shards."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from kcm.tasks.rowindex import RowIndex


@pytest.fixture
def shards(tmp_path):
    """Train rows in two shards, and two test rows of which one is out of scope."""
    rows = [(["train"] * 3, [0, 1, -100]), (["train", "test", "test"], [1, 0, -1])]
    paths = [tmp_path / f"task-{number}.parquet" for number in range(2)]
    for path, (splits, labels) in zip(paths, rows, strict=True):
        pq.write_table(pa.table({"split": splits, "label": labels}), path)
    return paths


def test_a_split_goes_on_in_the_next_shard_and_out_of_scope_rows_are_apart(shards) -> None:
    index = RowIndex.of_shards(shards)
    assert index.ranges == {"train": range(4), "test": range(4, 5), "test, out of scope": range(5, 6)}
    assert index.labels["train"] == {0: 1, 1: 2, -100: 1}
    assert index.shard_rows == (3, 3)


def test_a_cut_shard_is_named(shards) -> None:
    shards[1].write_bytes(shards[1].read_bytes()[:-20])
    with pytest.raises(ArtefactError, match="cannot be read") as error:
        RowIndex.of_shards(shards)
    assert error.value.where == str(shards[1])
