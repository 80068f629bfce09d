"""Folders of pictures become rows: the folders tell the label, the task and the split, the path is the id."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from benchmarks.sequences import build_sequence
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import IMAGE, PROBE
from kcm.tasks import TasksConfig
from kcm.tasks.readers import pictures
from kcm.tasks.readers.pictures import PicturesSource


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder("cat/1.png", …)` writes files with their names as content."""

    def write(*names: str) -> Path:
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(name)
        return tmp_path

    return write


def found(path: Path | str, **config: Any) -> list[tuple[Any, ...]]:
    rows = PicturesSource(path=str(path), **config).build(Path()).records
    return [(row.id, row.label, row.task, row.split, row.image) for row in rows]


def test_a_folder_for_each_label(folder: Callable[..., Path]) -> None:
    assert found(folder("größe 1/b.PNG", "cat/deep/a.jpg", "cat/notes.txt", ".hidden/a.png")) == [
        ("cat/deep/a.jpg", "cat", "", "", b"cat/deep/a.jpg"),
        ("größe 1/b.PNG", "größe 1", "", "", "größe 1/b.PNG".encode()),
    ]


def test_folders_named_after_splits_are_splits_where_all_are(folder: Callable[..., Path]) -> None:
    path = folder("train/cat/a.png", "val/dog/a.png")
    assert [row[:4] for row in found(path)] == [
        ("train/cat/a.png", "cat", "", "train"),
        ("val/dog/a.png", "dog", "", "val"),
    ]
    folder("other/a.png")
    assert [row[1] for row in found(path)] == ["other", "train", "val"]


def test_folders_mean_what_the_configuration_says(folder: Callable[..., Path]) -> None:
    path = folder("sketch/cat/a.png", "photo/b.png")
    assert [row[:4] for row in found(path, folders=("task", "label"))] == [
        ("photo/b.png", None, "photo", ""),
        ("sketch/cat/a.png", "cat", "sketch", ""),
    ]


def test_pictures_of_an_object_store_are_read_from_there(put: Callable[[str, bytes], str]) -> None:
    put("animals/cat/a.png", b"a")
    uri = put("animals/dog/b.png", b"b").replace("/dog/b.png", "")
    assert [(row[0], row[1], row[4]) for row in found(uri)] == [("cat/a.png", "cat", b"a"), ("dog/b.png", "dog", b"b")]


def test_many_pictures_are_several_shards_of_small_tables(
    folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = folder(*(f"{'ab'[n % 2]}/{n:03}.png" for n in range(100)))
    whole = pa.concat_tables(PicturesSource(path=str(path)).build(path).tables())
    monkeypatch.setattr(pictures, "TABLE_BYTES", 10 * 1024)
    monkeypatch.setattr(pictures, "SHARD_BYTES", 30 * 1024)
    shards = pickle.loads(pickle.dumps(PicturesSource(path=str(path)).build(path).shards))
    tables = [table for shard in shards for table in shard.read()]
    assert (len(shards), {len(table) for table in tables}) == (4, {10})
    assert pa.concat_tables(tables).combine_chunks().equals(whole.combine_chunks())


def test_a_picture_that_is_damaged_or_gone_is_a_bad_row(folder: Callable[..., Path]) -> None:
    path = folder(*(f"{'ab'[n % 2]}/{n}.png" for n in range(60)))
    for file in path.rglob("*.png"):
        file.write_bytes(PROBE.image)
    (path / "a" / "0.png").write_bytes(b"text")
    source = PicturesSource(path=str(path)).build(path)
    (path / "b" / "1.png").unlink()
    config = TasksConfig(
        source=PicturesSource(path=str(path)), scenario="class_incremental", num_tasks=1, max_bad_rows=2
    )
    with pytest.raises(DataError, match=r"no \w+ rows"):  # one picture alone cannot be split
        build_sequence(config, path, 0, reads=IMAGE, source=source, bad_rows_file=path / "bad.csv")
    listed = (path / "bad.csv").read_text()
    assert 'a/0.png,"not an image of a known kind' in listed
    assert "b/1.png,no image file 'b/1.png': no such file" in listed


def test_what_holds_no_pictures_is_refused(folder: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no picture .*\.png, \.jpg"):
        found(folder("cat/a.txt"))
    with pytest.raises(DataError, match="no such file"):
        found(tmp_path / "gone")
    with pytest.raises(ConfigError, match="'pictures' have no column 'v'"):
        PicturesSource(path=str(tmp_path)).build(tmp_path, ("v",))
