"""The same rows come out of every kind of file, and a file that cannot be used says why."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from kcm.errors import DataError
from kcm.tasks.readers.files import FilesSource
from kcm.tasks.rows import Record

ROWS = [{"text": 'Größe, "ok"', "label": "NA", "who": "x"}, {"text": "007", "label": "1", "who": "y"}]


def records(path, **columns):
    return list(FilesSource(path=str(path), **columns).build(Path()).records)


def write(path, rows):
    frame = pd.DataFrame(rows)
    match path.suffix:
        case ".csv":
            frame.to_csv(path, index=False)
        case ".tsv":
            frame.to_csv(path, index=False, sep="\t")
        case ".json":
            path.write_text(json.dumps(rows), encoding="utf-8")
        case ".jsonl":
            path.write_text("\n".join(map(json.dumps, rows)) + "\n\n", encoding="utf-8")
        case ".parquet":
            frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_every_kind_of_file_gives_the_same_rows_as_text(kind, tmp_path):
    found = records(write(tmp_path / f"data.{kind}", ROWS), group_column="who")
    assert found == [
        Record("data-1", 'Größe, "ok"', "NA", group="x"),
        Record("data-2", "007", "1", group="y"),
    ]


@pytest.mark.parametrize("kind", ["json", "jsonl", "parquet"])
def test_numbers_become_text_and_null_is_missing(kind, tmp_path):
    rows = [{"text": "a", "label": 3, "id": 10}, {"text": None, "label": 4, "id": 11}]
    assert records(write(tmp_path / f"data.{kind}", rows), id_column="id") == [
        Record("10", "a", "3"),
        Record("11", None, "4"),
    ]


def test_not_a_number_is_missing(tmp_path):
    (tmp_path / "data.json").write_text('[{"text": "a", "label": NaN}, {"text": "b", "label": 1}]')
    assert [record.label for record in records(tmp_path / "data.json")] == [None, "1"]


def test_an_empty_cell_of_a_named_column_is_missing(write_csv):
    path = write_csv([("a", "x", "", "d1"), ("b", "x", "t", "")], ("text", "label", "topic", "doc"))
    first, second = records(path, task_column="topic", group_column="doc")
    assert (first.task, first.group) == (None, "d1")
    assert (second.task, second.group) == ("t", None)


def test_a_column_called_split_is_honoured_without_being_named(write_csv):
    path = write_csv([("a", "x", "train"), ("b", "x", "test")], ("text", "label", "split"))
    assert [record.split for record in records(path)] == ["train", "test"]


def test_the_layout_of_clinc150_is_recognised(tmp_path):
    path = tmp_path / "data_full.json"
    content = {"train": [["pay my bill", "pay_bill"]], "val": [["balance", "balance"]], "oos_test": [["moo", "oos"]]}
    path.write_text(json.dumps(content))
    assert records(path) == [
        Record("train-1", "pay my bill", "pay_bill", split="train"),
        Record("val-1", "balance", "balance", split="val"),
        Record("oos_test-1", "moo", "oos", split="test"),
    ]
    assert FilesSource(path=str(path)).build(tmp_path).out_of_scope_label == "oos"


def test_the_layout_of_banking77_is_recognised(write_csv, tmp_path):
    write_csv([("where is my card", "card_arrival")], ("text", "category"), "bank/train.csv")
    write_csv([("card lost", "lost_card")], ("text", "category"), "bank/test.csv")
    (tmp_path / "bank" / "categories.json").write_text('["card_arrival", "lost_card"]')
    assert records(tmp_path / "bank") == [
        Record("test-1", "card lost", "lost_card", split="test"),
        Record("train-1", "where is my card", "card_arrival", split="train"),
    ]
    assert FilesSource(path=str(tmp_path / "bank")).build(tmp_path).out_of_scope_label is None


def test_a_wrong_column_names_the_nearest_and_all(write_csv):
    path = write_csv([("a", "x")], ("sentence_text", "label"))
    with pytest.raises(DataError, match=r"no column 'txt' \(text_column\).*mean 'sentence_text'.*sentence_text, label"):
        records(path, text_column="txt")


def test_a_missing_file_names_what_lies_beside_it(write_csv, tmp_path):
    write_csv([("a", "x")], name="reviews.csv")
    with pytest.raises(DataError, match=r"no such file.*revews\.csv.*holds reviews\.csv"):
        records(tmp_path / "revews.csv")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.csv", "text,label\nGr\xf6\xdfe,a\n".encode("latin-1"), "not UTF-8"),
        ("data.csv", b"", "no rows"),
        ("data.csv", b"text,label\n", "no rows"),
        ("data.csv", b'text,label\n"open,a\n', "cannot read the file"),
        ("data.json", b'{"train": [', "cannot read the file"),
        ("data.json", b"[" * 100_000, "nested too deeply"),
        ("data.json", b'{"train": 3}', "expected a list of objects"),
        ("data.json", b'["text only"]', "row 1 is neither"),
        ("data.json", b"[" * 200_000, "nested too deeply"),
        ("data.parquet", b"not parquet", "cannot read the file"),
        ("data.xlsx", b"", r"unknown kind of file '\.xlsx'"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        records(tmp_path / name)
    assert name in str(caught.value)


def test_a_line_that_is_no_object_is_a_fault_of_its_row_and_of_no_other(tmp_path):
    lines = ['{"text": "a", "label": "x"}', "", "[" * 100_000, '{"text": ', '{"text": "b", "label": "x"}']
    (tmp_path / "data.jsonl").write_text("\n".join(lines))
    assert [(record.id, record.fault) for record in records(tmp_path / "data.jsonl")] == [
        ("data-1", ""),
        ("data-2", "line 3: not a JSON object of at most 100 levels"),
        ("data-3", "line 4: not a JSON object: Expecting value"),
        ("data-4", ""),
    ]


def test_a_row_with_more_fields_than_the_header_is_a_bad_row_and_a_short_one_is_not(tmp_path):
    (tmp_path / "data.csv").write_text('label,text,more\nx,a,\n\nx,b\nx,c,d,"e,f"\nx,"g\nh",i\n')
    assert [(record.id, record.text, record.fault) for record in records(tmp_path / "data.csv")] == [
        ("data-1", "a", ""),
        ("data-2", "b", ""),
        ("data-3", "c", "4 fields instead of 3"),
        ("data-4", "g\nh", ""),
    ]


def test_a_folder_of_several_kinds_of_files_says_how_to_name_them(write_csv, tmp_path):
    write_csv([("a", "x")], name="folder/everything.csv")
    write(tmp_path / "folder" / "more.jsonl", ROWS)
    with pytest.raises(DataError, match=r"several kinds, \.csv, \.jsonl.*train\.csv.*folder/\*\.csv"):
        records(tmp_path / "folder")


def test_pictures_of_a_table_lie_below_its_folder_or_the_configured_root(tmp_path):
    (tmp_path / "table").mkdir()
    (tmp_path / "a.png").write_bytes(b"file")
    path = write(tmp_path / "table" / "rows.csv", [{"image": "../a.png", "label": "x"}])
    (refused,) = records(path, text_column=None, image_column="image")
    assert (refused.image, "does not lie below" in refused.fault) == (b"", True)
    (taken,) = records(path, text_column=None, image_column="image", image_root=str(tmp_path))
    assert (taken.image, taken.fault) == (b"file", "")
