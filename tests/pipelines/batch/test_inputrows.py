"""Rows to answer are read from every kind of file as training rows are, whichever of them a worker is given."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.inputs.location import Location
from pipelines.batch.inputrows import InputReader, InputRows


def opened(path: Path, text: str | None = "text", *columns: str | None, **more: Any) -> InputRows:
    return InputRows.opened(Location.of(path), text, *columns, **more)


def rows_of(file: InputRows) -> list[dict[str, Any]]:
    (rows,) = InputReader()(file, 0, file.num_rows)
    return rows.to_pylist()


def test_rows_keep_their_ids_or_are_numbered(tmp_path: Path) -> None:
    """Promise: rows keep their own ids where they have them and are numbered else."""
    (tmp_path / "rows.csv").write_text("id,text\n007,a\n,b\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"id": 7, "text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    pq.write_table(pa.table({"id": [7, None], "text": ["a", "b"]}), tmp_path / "rows.parquet")
    for suffix, first in ((".csv", "007"), (".jsonl", "7"), (".parquet", "7")):
        file = opened(tmp_path / f"rows{suffix}")
        assert [row["id"] for row in rows_of(file)] == [first, "1"]


def test_missing_column_names_its_option(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("Text\na\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"no column 'text' \(--text-column\) .* Did you mean 'Text'\?"):
        opened(tmp_path / "in.csv")


def test_rows_are_read_in_any_order(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\n" + "".join(f"{number}\n" for number in range(2500)), encoding="utf-8")
    file, read = opened(tmp_path / "in.csv"), InputReader()
    assert file.num_rows == 2500
    for start, stop in ((0, 1000), (1000, 1100), (2000, 2500), (5, 6), (900, 2100), (0, 0)):
        (rows,) = read(file, start, stop)
        assert rows["text"].to_pylist() == rows["id"].to_pylist() == list(map(str, range(start, stop)))


def test_rows_that_a_file_has_lost_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text("text\na\nb\n")
    file = opened(tmp_path / "in.csv")
    (tmp_path / "in.csv").write_text("text\na\n")
    with pytest.raises(DataError, match=r"the file has changed meanwhile .*in\.csv"):
        rows_of(file)


def test_pictures_are_below_the_file_folder_or_a_named_root(tmp_path: Path) -> None:
    """Promise: pictures lie below the file's folder unless another root is named."""
    (tmp_path / "table").mkdir()
    (tmp_path / "a.png").write_bytes(b"file")
    for suffix, content in ((".csv", "image\n../a.png\n"), (".jsonl", '{"image": "../a.png"}\n')):
        path = tmp_path / "table" / f"rows{suffix}"
        path.write_text(content)
        (refused,) = rows_of(opened(path, None, "image"))
        assert "does not lie below" in refused["fault"]
        (allowed,) = rows_of(opened(path, None, "image", image_root=Location.of(tmp_path)))
        assert (allowed["image"], allowed["fault"]) == (b"file", "")


def test_vectors_come_from_encoder_columns_or_features(tmp_path: Path) -> None:
    """Promise: vectors are read by the encoders columns else from features."""
    records = [{"features": [1.0, 2.0]}, {"features": [1.0]}, {"features": None}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    rows = rows_of(opened(tmp_path / "rows.jsonl", None, vectors=("x*",)))
    assert [row["fault"] for row in rows] == ["", "the vector has 1 numbers, not 2", "no vector"]
    (tmp_path / "rows.csv").write_text("x1,x2\n0.5,1\n")
    assert rows_of(opened(tmp_path / "rows.csv", None, vectors=("x*",)))[0]["vector"] == [0.5, 1.0]
