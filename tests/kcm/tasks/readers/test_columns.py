"""Columns of many tables become one column of text, whatever their types."""

import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.tasks.readers.files import FilesSource


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """`folder(a={…}, b={…})` writes a Parquet file for each, with a text and a label where none are given."""

    def write(**tables: Any) -> Path:
        for name, columns in tables.items():
            size = len(next(iter(columns.values())))
            whole = {"text": ["t"] * size, "label": ["x"] * size} | columns
            pq.write_table(pa.table(whole), tmp_path / f"{name}.parquet")
        return tmp_path

    return write


def column(folder: Path, name: str, **config: Any) -> list[Any]:
    source = FilesSource(path=f"{folder}/*.parquet", **config).build(folder)
    return [value for table in source.tables() for value in table[name].to_pylist()]


WHEN = datetime.datetime(2026, 1, 2)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        (pa.array(["a", None, ""]), ["a", None, None]),
        (pa.array([3, None]), ["3", None]),
        (pa.array([1.0, 2.5, 1e20, float("nan"), None]), ["1", "2.5", "1e+20", None, None]),
        (pa.array([True, None]), ["True", None]),
        (pa.array([WHEN], pa.timestamp("us")), [str(WHEN)]),
        (pa.array(["b", "a", "b"]).dictionary_encode(), ["b", "a", "b"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.nulls(2), [None, None]),
    ],
)
def test_every_type_becomes_text_as_python_writes_it(folder: Any, values: pa.Array, text: list[str | None]) -> None:
    assert column(folder(a={"label": values}), "label") == text


def test_column_missing_from_or_added_by_a_file_is_refused(folder: Any) -> None:
    path = folder(a={"doc": ["d"]}, b={"dok": ["d"]})
    with pytest.raises(DataError, match=r"no column 'doc' \(group_column\) .*b\.parquet.*mean 'dok'"):
        column(path, "group", group_column="doc")
    assert column(path, "group") == ["", ""]
    folder(b={"split": ["test"]})
    with pytest.raises(DataError, match=r"a column 'split', which .*a\.parquet lacks .*b\.parquet.*split_column"):
        column(path, "split")


def test_optional_key_may_come_late_but_must_come(tmp_path: Path) -> None:
    rows = [{"text": "t", "label": "x"}] * 3 + [{"text": "t", "label": "x", "doc": 7}]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    (table,) = FilesSource(path=str(path), group_column="doc").build(tmp_path).tables()
    assert table["group"].to_pylist() == [None, None, None, "7"]
    with pytest.raises(DataError, match=r"no column 'dog' .*mean 'doc'"):
        FilesSource(path=str(path), group_column="dog").build(tmp_path)


def test_files_of_a_split_belong_to_it_and_others_do_not(folder: Any) -> None:
    path = folder(**{name: {"text": [name]} for name in ("train-00001-of-2", "train_0", "dev", "trained", "other")})
    source = FilesSource(path=str(path)).build(path)
    assert [(row.text, row.split, row.id) for row in source.records] == [
        ("dev", "val", "dev-1"),
        ("train-00001-of-2", "train", "train-00001-of-2-1"),
        ("train_0", "train", "train_0-1"),
    ]


def test_path_list_keeps_order_and_ids_below_common_folder(folder: Any, tmp_path: Path) -> None:
    folder(b={"text": ["2"]})
    (tmp_path / "deep").mkdir()
    pq.write_table(pa.table({"text": ["1"], "label": ["x"]}), tmp_path / "deep" / "b.parquet")
    assert FilesSource(path=f"{tmp_path}/deep/*.parquet").build(tmp_path).name == "deep"
    source = FilesSource(path=(str(tmp_path / "deep"), str(tmp_path / "b.parquet"))).build(tmp_path)
    assert [(row.text, row.id) for row in source.records] == [("1", "deep/b-1"), ("2", "b-1")]


def test_pictures_of_paths_come_a_few_at_a_time(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"file")
    (tmp_path / "rows.csv").write_text("image,label\n" + "a.png,x\n" * 600 + "gone.png,x\n,x\n")
    source = FilesSource(path=str(tmp_path / "rows.csv"), text_column=None, image_column="image").build(tmp_path)
    tables = list(source.tables())
    assert [len(table) for table in tables] == [256, 256, 90]
    last = tables[-1].to_pylist()[-2:]
    assert (last[0]["fault"], last[1]["image"]) == ("no image file 'gone.png': No such file or directory", None)


def test_pictures_may_be_in_a_store_but_not_outside_its_folder(
    put: Callable[[str, bytes], str],
) -> None:
    put("pictures/deep/a.png", b"file")
    put("secret.png", b"secret")
    uri = put("pictures/rows.csv", b"image,label\ndeep/a.png,x\n../secret.png,x\ngone.png,x\n")
    rows = list(FilesSource(path=uri, text_column=None, image_column="image").build(Path()).records)
    assert rows[0].image == b"file"
    assert [row.fault for row in rows[1:]] == [
        "image file '../secret.png' does not lie below 's3://rows/pictures'; an image root may allow more",
        "no image file 'gone.png': no such file",
    ]


def test_rows_of_a_store_are_those_of_the_same_files_here(put: Callable[[str, bytes], str], folder: Any) -> None:
    path = folder(train={"text": ["größe", "b"]}, test={"text": ["c"]})
    for name in ("train", "test"):
        uri = put(f"an a b/{name}.parquet", (path / f"{name}.parquet").read_bytes())
    here, there = (FilesSource(path=each).build(path) for each in (str(path), uri.replace("/test.parquet", "")))
    assert list(here.records) == list(there.records)
    assert there.name == "an a b"
    with pytest.raises(DataError, match=r"the bucket 'absent' does not exist"):
        FilesSource(path=uri.replace("rows/", "absent/")).build(path)
