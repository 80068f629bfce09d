from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import DataError
from kcm.inputs.location import Location
from kcm.inputs.rowfile import RowFile, open_rows
from tests.kcm.inputs.table_files import WRITERS


def rows_of(file: RowFile, size: int = 2) -> list[dict[str, object]]:
    """The rows with their pictures, whose faults are theirs."""
    return [
        row | {"image": image, "fault": row["fault"] or fault or None}
        for chunk in file.chunks(size)
        for row, (image, fault) in zip(
            chunk.drop_columns(["payload"]).to_pylist(), file.pictures(chunk["payload"]), strict=True
        )
    ]


def payloads_of(file: RowFile, size: int = 2) -> list[dict[str, object]]:
    return [record for chunk in file.chunks(size) for record in file.records(chunk["payload"])]


def test_csv_values_stay_the_strings_that_they_are(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('id,text,stars\n007,"two\nlines, one ""quote""",5\n008,plain,\n', encoding="utf-8")
    file = open_rows(path, "text")
    assert file.num_rows == 2
    assert payloads_of(file) == pd.read_csv(path, dtype=str, keep_default_na=False).to_dict("records")
    assert [row["text"] for row in rows_of(file)] == ['two\nlines, one "quote"', "plain"]


def test_rows_are_numbered_across_chunks(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"row {i}\n" for i in range(7)), encoding="utf-8")
    assert [(row["id"], row["text"]) for row in rows_of(open_rows(path, "text"), size=3)] == [
        (str(i), f"row {i}") for i in range(7)
    ]


def test_a_file_in_a_store_and_one_that_is_compressed_are_read_as_others_are(put: Callable[[str, bytes], str]) -> None:
    uri = put("a/rows.csv.gz", gzip.compress(b"text,image\nplain,../b.png\nbad,c.png\n"))
    put("a/c.png", b"file")
    rows = rows_of(open_rows(Location.of(uri), "text", image_column="image"))
    assert [(row["text"], row["image"]) for row in rows] == [("plain", b""), ("bad", b"file")]
    assert "does not lie below" in str(rows[0]["fault"])


def test_rows_keep_their_own_ids_where_they_have_them(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("id,text\n007,a\n,b\n", encoding="utf-8")
    (tmp_path / "rows.jsonl").write_text('{"id": 7, "text": "a"}\n{"text": "b"}\n', encoding="utf-8")
    pq.write_table(pa.table({"id": [7, None], "text": ["a", "b"]}), tmp_path / "rows.parquet")
    found = {
        s: [row["id"] for row in rows_of(open_rows(tmp_path / f"rows{s}", "text"))]
        for s in (".csv", ".jsonl", ".parquet")
    }
    assert found == {".csv": ["007", "1"], ".jsonl": ["7", "1"], ".parquet": ["7", "1"]}


def test_json_lines_keep_nested_and_mixed_values(tmp_path: Path) -> None:
    records = [
        {"text": "a", "more": {"deep": [1, None]}, "n": 2**70},
        {"text": "b", "more": 3},
        {"n": 1.5, "text": "c"},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records) + "\n\n", encoding="utf-8")
    file = open_rows(path, "text")
    assert file.num_rows == 3
    assert payloads_of(file) == records


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    table = pa.table(
        {"text": ["a", None, "c"], "when": pa.array([0, 1, None], pa.timestamp("ms")), "v": [[1.0], [], None]}
    )
    path = tmp_path / "rows.parquet"
    pq.write_table(table, path)
    file = open_rows(path, "text")
    assert pa.concat_tables(file.columns(chunk["payload"]) for chunk in file.chunks(2)).equals(table)


def test_the_task_column_is_read_where_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,domain\na,movies\nb,\n", encoding="utf-8")
    assert [row["task"] for row in rows_of(open_rows(path, "text", "domain"))] == ["movies", None]
    assert [row["task"] for row in rows_of(open_rows(path, "text"))] == [None, None]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"body,texts\na,b\n", "no column 'text'.*Did you mean 'texts'"),
        ("rows.csv", b"", "no column 'text'.*columns are none"),
        ("rows.jsonl", b'{"Text": "a"}\n', "no column 'text'.*Did you mean 'Text'"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_the_reason(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        open_rows(path, "text")


def test_pictures_lie_below_the_file_s_folder_unless_another_root_is_named(tmp_path: Path) -> None:
    (tmp_path / "table").mkdir()
    (tmp_path / "a.png").write_bytes(b"file")
    for suffix, content in ((".csv", "image\n../a.png\n"), (".jsonl", '{"image": "../a.png"}\n')):
        path = tmp_path / "table" / f"rows{suffix}"
        path.write_text(content)
        (refused,) = rows_of(open_rows(path, None, image_column="image"))
        assert "does not lie below" in str(refused["fault"])
        (allowed,) = rows_of(open_rows(path, None, image_column="image", image_root=Location.of(tmp_path)))
        assert (allowed["image"], allowed["fault"]) == (b"file", None)


def test_chats_are_answered_by_what_the_user_said_last_and_written_back_as_they_came(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "where is it"}, {"role": "assistant", "content": "lost"}]}
    (tmp_path / "rows.jsonl").write_text(json.dumps(chat))
    file = open_rows(tmp_path / "rows.jsonl", "messages")
    assert [row["text"] for row in rows_of(file)] == ["where is it"]
    assert payloads_of(file) == [chat]


@pytest.mark.parametrize("name", WRITERS)
def test_every_kind_of_file_is_answered_by_the_same_texts_and_ids_and_keeps_its_columns(
    tmp_path: Path, name: str
) -> None:
    rows = [{"id": 7, "text": "Größe, ok", "stars": 4}, {"id": 8, "text": "two\nlines", "stars": 5}]
    WRITERS[name](rows, tmp_path / name)
    file = open_rows(tmp_path / name, "text")
    assert file.num_rows == 2
    assert [(row["id"], row["text"], row["fault"]) for row in rows_of(file)] == [
        ("7", "Größe, ok", None),
        ("8", "two\nlines", None),
    ]
    [chunk] = file.chunks(10)
    assert [{key: str(value) for key, value in row.items()} for row in file.columns(chunk["payload"]).to_pylist()] == [
        {key: str(value) for key, value in row.items()} for row in rows
    ]
