"""A source whose files are the same is not read again; whatever may have changed is, and has its name by its rows."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.inputs import location
from kcm.tasks.readers.files import FileShard
from pipelines.stages.tasks import Tasks
from pipelines.store.artefact import Artefact
from tests.pipelines.runs import run_of


@pytest.fixture
def rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(location, "SETTLED_S", -1.0)  # these files were written a moment ago
    folder = tmp_path / "rows"
    folder.mkdir()
    for name, start in (("a", 0), ("b", 300)):
        write(folder / f"{name}.parquet", [f"text {n}" for n in range(start, start + 300)])
    return folder


def write(file: Path, texts: list[str]) -> None:
    table = pa.table({"text": texts, "label": ["no", "yes"] * (len(texts) // 2)})
    pq.write_table(table, file, compression="none", use_dictionary=False)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read: once for facts of their rows, and once for the rows."""
    found: list[str] = []
    whole = FileShard.read

    def read(shard: FileShard) -> Any:
        found.append(shard.table.location.name)
        return whole(shard)

    monkeypatch.setattr(FileShard, "read", read)
    return found


@pytest.fixture
def build(tmp_path: Path, rows: Path) -> Callable[..., Artefact]:
    """The artefact of the stage, for a configuration with some sections changed."""

    def built(**changes: Any) -> Artefact:
        config, context = run_of(tmp_path, rows / "*.parquet", tasks=changes)
        return Tasks.of(config).build({}, context)

    return built


def test_files_that_are_the_same_are_not_read_again(build, reads, tmp_path: Path) -> None:
    first = build()
    assert reads == ["a.parquet", "b.parquet"]
    (tmp_path / "storage/runs/run/bad_rows.csv").unlink()
    again = build()
    assert reads == ["a.parquet", "b.parquet"]
    assert again.path == first.path
    assert (tmp_path / "storage/runs/run/bad_rows.csv").read_text() == (first.folder / "bad_rows.csv").read_text()


def test_touched_file_keeps_its_name_and_changed_row_does_not(build, reads, rows: Path) -> None:
    """Promise: a touched file is read and has the same name and a changed row has another."""
    first = build()
    times = (rows / "b.parquet").stat()
    os.utime(rows / "b.parquet")
    assert build().path == first.path
    assert len(reads) == 4
    content = [f"text {n}" for n in range(300, 600)]
    write(rows / "b.parquet", [*content[:7], "text new", *content[8:]])  # as many bytes, and the times of before
    os.utime(rows / "b.parquet", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (rows / "b.parquet").stat().st_size == times.st_size
    assert build().fingerprint != first.fingerprint


def test_new_file_option_or_lost_artefact_is_read_again(build, reads, rows: Path) -> None:
    """Promise: a new file another option and a lost artefact make it read."""
    first = build()
    assert build(salt=7).fingerprint != first.fingerprint
    assert len(reads) == 4
    shutil.rmtree(first.home)
    assert build().fingerprint == first.fingerprint
    assert len(reads) == 6
    write(rows / "c.parquet", ["text of c", "another of c"])
    assert build().fingerprint != first.fingerprint
    assert reads[6:] == ["a.parquet", "b.parquet", "c.parquet"]


def test_a_file_that_changes_while_it_is_read_is_not_remembered(build, reads, rows: Path, monkeypatch) -> None:
    whole = FileShard.read

    def read(shard: FileShard) -> Any:
        os.utime(rows / "a.parquet")
        return whole(shard)

    with monkeypatch.context() as patch:
        patch.setattr(FileShard, "read", read)
        build()
    build()
    assert reads == ["a.parquet", "b.parquet"] * 2
