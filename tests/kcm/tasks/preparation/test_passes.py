"""A sequence is the same files whatever the blocks and shards in which its rows come, and whoever works on them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.sequences import read_rows
from kcm.config import parse_config
from kcm.errors import DataError
from kcm.inputs.content import IMAGE, TEXT, Part
from kcm.tasks import SPLITS, TasksConfig, shards
from kcm.tasks.preparation import build, database, facts
from kcm.tasks.preparation.build import in_process, write_sequence
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.shards import task_shards
from kcm.tasks.sources import Source, TableShard


def some_rows(count: int = 1200) -> pa.Table:
    """Rows of every kind: documents, texts that repeat, ids that repeat, out-of-scope and unlabelled rows, bad ones."""
    draw = np.random.default_rng(0)
    records = []
    for i in range(count):
        text = f"Größe {draw.integers(3 * count // 4)}\u2003naïve ✓" if i % 7 else f"  Plain TEXT {i % 91} "
        label = "" if i % 13 == 0 else "none" if i % 17 == 0 else f"label-{i % 4}"
        group = f"document {i // 3}" if i % 2 else ""
        records.append(
            SourceRow(f"r{i % (count - 5)}", "" if i % 301 == 0 else text, label, group, task="xy"[i % 8 > 3])
        )
    return rows_of(records)


CONFIG = {
    "max_rows_per_task": 400,
    "max_bad_rows": "5%",
    "long_tail": {"imbalance_factor": 2},
    "unlabelled": "keep",
    "out_of_scope": "keep",
}


def written(folder: Path, rows: Sequence[pa.Table], workers: Any = in_process) -> tuple[str, dict[str, bytes]]:
    """The digest and the files of the sequence of some shards."""
    source = Source("rows", tuple(TableShard("rows", table) for table in rows), (), "none")
    digest = write_sequence(parse_config(TasksConfig, CONFIG), folder, source, 3, workers=workers)
    return digest, {file.name: file.read_bytes() for file in folder.iterdir()}


def last_first(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterable[Any]:
    """Workers that begin at the other end."""
    return [function(item) for item in items[::-1]][::-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    return written(tmp_path_factory.mktemp("whole") / "sequence", [some_rows()])


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_neither_blocks_nor_shards_of_the_source_change_a_byte(
    block_rows: int, whole: tuple[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "SHARD_ROWS", block_rows * 10)
    rows = some_rows()
    bounds = [0, 10, 10, 500, 1200]
    tables = [rows.slice(start, stop - start) for start, stop in pairwise(bounds)]
    assert written(tmp_path / "parts", tables, last_first) == whole


def test_neither_threads_nor_memory_change_a_byte(
    whole: tuple[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MEMORY_LIMIT", "20MB")
    assert written(tmp_path / "spilled", [some_rows()]) == whole


def test_another_row_is_another_digest(whole: tuple[str, dict[str, bytes]], tmp_path: Path) -> None:
    rows = some_rows()
    assert written(tmp_path / "same", [rows])[0] == whole[0]
    used = read_rows(tmp_path / "same", 0)["id"][0].as_py()
    kept = pa.array([row_id != used for row_id in rows["id"].to_pylist()])
    assert written(tmp_path / "other", [rows.filter(kept)])[0] != whole[0]


def test_a_task_of_many_rows_has_several_shards_in_the_order_of_the_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "SHARD_ROWS", 128)
    monkeypatch.setattr(shards, "GROUP_ROWS", 32)
    records = [SourceRow(str(i), f"text {i}", "ab"[i % 2]) for i in range(1000)]
    config = parse_config(TasksConfig, {"scenario": "class_incremental", "num_tasks": 1})
    write_sequence(config, tmp_path / "sequence", Source.of_records("rows", records), 0)
    files = task_shards(tmp_path / "sequence", 0)
    assert [len(pq.read_table(file)) for file in files] == [128] * 7 + [104]
    rows = read_rows(tmp_path / "sequence", 0)
    assert rows["split"].to_pylist() == sorted(rows["split"].to_pylist(), key=SPLITS.index)
    for split in SPLITS:
        numbers = [int(row["id"]) for row in rows.to_pylist() if row["split"] == split]
        assert numbers == sorted(numbers)


@pytest.mark.parametrize("reads", [TEXT, IMAGE, TEXT | IMAGE])
def test_a_row_keeps_what_is_read_of_it(reads: frozenset[Part], tmp_path: Path) -> None:
    rows = [SourceRow(str(i), f"text {i}", "ab"[i % 2], image=picture(i)) for i in range(100)]
    config = parse_config(TasksConfig, {"num_tasks": 1, "scenario": "class_incremental"})
    write_sequence(config, tmp_path / "sequence", Source.of_records("rows", rows), 0, reads=reads)
    for row in read_rows(tmp_path / "sequence", 0).to_pylist():
        given = rows[int(row["id"])]
        assert (row["text"], row["image"]) == (
            given.text if "text" in reads else "",
            given.image if "image" in reads else b"",
        )


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), shade).save(file, "PNG")
    return file.getvalue()


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    for number, shards_ in enumerate(((), (TableShard("empty", some_rows().slice(0, 0)),))):
        with pytest.raises(DataError, match="there are no rows"):
            write_sequence(TasksConfig(), tmp_path / str(number), Source("rows", shards_), 0)
