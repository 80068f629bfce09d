"""Whole tables in memory, and notes on their files."""

from pathlib import Path

import pandas as pd
import pytest

from kcm.errors import DataError
from kcm.inputs.location import Location
from kcm.inputs.tables import file_notes, read_frame
from tests.kcm.inputs.table_files import excel

KINDS = (".csv", ".tsv", ".parquet")


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet", "csv.gz"])
def test_cells_stay_as_they_are_however_many_rows_there_are(tmp_path: Path, kind: str) -> None:
    labels = ["NA", "", "null"] * 33340
    frame = pd.DataFrame({"id": [f"{number:05}" for number in range(len(labels))], "label": labels})
    path = tmp_path / f"rows.{kind}"
    frame.to_parquet(path) if kind == "parquet" else frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    pd.testing.assert_frame_equal(read_frame(path, KINDS), frame)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.csv", b"", "the file is empty"),
        ("rows.csv", b"a,b\n1,2,3\n4,5,6,7\n", "cannot read the file: row 1: 3 fields instead of 2"),
        ("rows.xls", b"", r"unknown kind of file '\.xls'.*Use \.csv, \.tsv, \.parquet"),
    ],
)
def test_a_file_that_is_not_sound_says_why(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_frame(tmp_path / name, KINDS)


def test_unread_sheets_are_named(tmp_path: Path) -> None:
    """Of a workbook the first sheet is read."""
    (tmp_path / "book.xlsx").write_bytes(excel([{"text": "a"}], ("rows", "notes", "old")))
    (note,) = file_notes(Location.of(tmp_path / "book.xlsx"))
    assert note.startswith("warning: book.xlsx: sheet 'rows' is read, 2 more are ignored: 'notes', 'old';")
