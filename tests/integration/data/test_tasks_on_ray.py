"""Rows that go through Ray Data become the same files as rows that go through one process."""

import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from kcm.config import parse_config
from kcm.errors import DataError
from kcm.tasks import TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.sources import Shard, Source, TableShard
from pipelines.batch.mapping import map_items

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


def on_ray_data(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterator[Any]:
    return map_items(function, items, few=1)


def test_workers_write_the_same_files_and_their_errors_arrive(tmp_path: Path) -> None:
    records = [
        SourceRow(f"r{i % 990}", f"text {i % 700}", f"label-{i % 4}", group=f"document {i // 3}" if i % 2 else "")
        for i in range(1000)
    ]
    source = Source("rows", tuple(TableShard(str(i), rows_of(records[i::5])) for i in range(5)))
    values = {"scenario": "class_incremental", "num_tasks": 2, "max_rows_per_task": 300}
    config = parse_config(TasksConfig, values)
    here = write_sequence(config, tmp_path / "here", source, 0)
    there = write_sequence(config, tmp_path / "there", source, 0, workers=on_ray_data)
    assert there == here
    names = sorted(file.name for file in (tmp_path / "here").iterdir())
    assert names == ["bad_rows.csv", "sequence.json", "task-0000.parquet", "task-0001.parquet", "units.parquet"]
    assert {name: (tmp_path / "there" / name).read_bytes() for name in names} == {
        name: (tmp_path / "here" / name).read_bytes() for name in names
    }
    strict = parse_config(TasksConfig, values | {"max_bad_rows": 0})
    with pytest.raises(DataError, match="10 of 1000 rows are bad"):
        write_sequence(strict, tmp_path / "strict", source, 0, workers=on_ray_data)
    with pytest.raises(DataError, match="no such shard"):
        list(on_ray_data(_fail, [1, 2], 2))


def test_the_driver_holds_counts(tmp_path: Path) -> None:
    """Promise: what the driver holds at its peak does not grow with the rows."""
    config = parse_config(TasksConfig, {"scenario": "class_incremental", "num_tasks": 2})
    peaks = []
    for num_shards in (2, 14):
        source = Source("rows", tuple(MadeShard(number) for number in range(num_shards)))
        in_arrow = [0]

        def watched(*given: Any, in_arrow: list[int] = in_arrow) -> Iterator[Any]:
            for result in on_ray_data(*given):
                in_arrow.append(pa.total_allocated_bytes())
                yield result

        before = pa.total_allocated_bytes()
        tracemalloc.start()
        write_sequence(config, tmp_path / str(num_shards), source, 0, workers=watched)
        peaks.append(tracemalloc.get_traced_memory()[1] + max(in_arrow) - before)
        tracemalloc.stop()
    grown, more = peaks[1] - peaks[0], 12 * next(MadeShard(0).read()).nbytes
    assert grown < more / 50, f"{grown:,} bytes more for {more:,} bytes more of rows"


class MadeShard(Shard):
    """Rows that are made where they are read."""

    def __init__(self, number: int) -> None:
        self.number, self.where = number, str(number)

    def read(self) -> Iterator[pa.Table]:
        """Six thousand rows of a hundred words."""
        words = " word" * 100
        ids = range(6000 * self.number, 6000 * (self.number + 1))
        yield rows_of([SourceRow(f"r{i}", f"{i}{words}", f"label-{i % 4}", group=f"g{i // 50}") for i in ids])


def _fail(number: int) -> None:
    raise DataError("no such shard", where=str(number))
