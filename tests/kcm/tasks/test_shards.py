"""A task lies in shards of bounded size, whatever the pieces in which its rows came."""

from itertools import accumulate
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError
from kcm.tasks import shards
from kcm.tasks.shards import RowIndex, shard_file, task_shards, write_shards

ROWS = pa.table({"id": [str(i) for i in range(23)], "label": range(23)})


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "GROUP_ROWS", 4)
    monkeypatch.setattr(shards, "SHARD_ROWS", 8)


def written(folder: Path, pieces: list[int]) -> list[Path]:
    """The shards of task 3, its rows written in pieces of these sizes."""
    folder.mkdir()
    starts = accumulate(pieces, initial=0)
    write_shards(folder, 3, (ROWS.slice(*piece) for piece in zip(starts, pieces, strict=False)))
    return task_shards(folder, 3)


def test_rows_fill_row_groups_and_shards_in_their_order(tmp_path: Path) -> None:
    files = written(tmp_path / "a", [23])
    assert [file.name for file in files] == [
        "task-0003.parquet",
        "task-0003.00001.parquet",
        "task-0003.00002.parquet",
    ]
    opened = [pq.ParquetFile(file).metadata for file in files]
    assert [[each.row_group(i).num_rows for i in range(each.num_row_groups)] for each in opened] == [
        [4, 4],
        [4, 4],
        [4, 3],
    ]
    assert pa.concat_tables([pq.read_table(file) for file in files]).equals(ROWS)


@pytest.mark.parametrize("pieces", [[1] * 23, [3, 0, 17, 3], [8, 8, 7]])
def test_the_pieces_in_which_rows_come_change_no_byte(tmp_path: Path, pieces: list[int]) -> None:
    whole, parts = written(tmp_path / "whole", [23]), written(tmp_path / "parts", pieces)
    assert [file.read_bytes() for file in parts] == [file.read_bytes() for file in whole]


def test_a_missing_shard_is_refused_by_name(tmp_path: Path) -> None:
    files = written(tmp_path / "a", [23])
    files[1].unlink()
    with pytest.raises(ArtefactError, match=files[1].name):
        task_shards(tmp_path / "a", 3)
    with pytest.raises(ArtefactError, match="task-0004"):
        task_shards(tmp_path / "a", 4)


@pytest.fixture
def two_shards(tmp_path):
    """Train rows in two shards, and two test rows of which one is out of scope."""
    rows = [(["train"] * 3, [0, 1, -100]), (["train", "test", "test"], [1, 0, -1])]
    paths = [tmp_path / f"task-{number}.parquet" for number in range(2)]
    for path, (splits, labels) in zip(paths, rows, strict=True):
        pq.write_table(pa.table({"split": splits, "label": labels}), path)
    return paths


def test_split_continues_in_the_next_shard(two_shards) -> None:
    """Promise: a split goes on in the next shard, and out-of-scope rows lie apart."""
    index = RowIndex.of_shards(two_shards)
    assert index.ranges == {"train": range(4), "test": range(4, 5), "test, out of scope": range(5, 6)}
    assert index.labels["train"] == {0: 1, 1: 2, -100: 1}
    assert index.shard_rows == (3, 3)


def test_tasks_whose_numbers_begin_alike_keep_their_shards_apart(tmp_path: Path) -> None:
    for task in (1000, 10000):
        shard_file(tmp_path, task, 0).touch()
        shard_file(tmp_path, task, 1).touch()
    assert [file.name for file in task_shards(tmp_path, 1000)] == ["task-1000.parquet", "task-1000.00001.parquet"]
