"""Whole tables: the same cells as a frame and as records, and what a file that is not sound is refused with."""

from pathlib import Path

import pandas as pd
import pytest

from kcm.errors import DataError
from kcm.inputs.tables import read_frame, read_table
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


ROWS = [{"id": n, "text": f"Größe; {n}", "label": "ab"[n % 2]} for n in range(20)]


def test_notes_say_what_a_table_lacks(tmp_path: Path) -> None:
    """Encoding, delimiter, rows that are left out and cells with line breaks; the other rows keep their numbers."""
    text = 'text;label\na;x\n"two\nlines";y\nb;x;more\nc;y\n'
    (tmp_path / "rows.csv").write_bytes(text.encode("utf-16"))
    table = read_table(tmp_path / "rows.csv")
    assert table.frame.index.tolist() == [1, 2, 4]
    assert [note.partition(": if")[0] for note in table.notes] == [
        "rows.csv: cells separated by semicolons, encoding utf-16",
        "left out: 1 rows, 3 fields instead of 2 (row 3)",
        "warning: cells of 1 rows hold line breaks (row 2)",
    ]


def test_cut_json_lines_keep_the_rows_before(tmp_path: Path) -> None:
    """A file that was cut in the middle of a line loses this line alone, by name; types that differ become text."""
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": "x"}\n{"a": 2, "b"')
    table = read_table(tmp_path / "rows.jsonl")
    assert table.frame["a"].tolist() == ["1", "x"]
    assert "left out: 1 rows, not a JSON object: Expecting ':' delimiter (row 3)" in table.notes


def test_sheets_that_are_not_read_are_named(tmp_path: Path) -> None:
    """Of a workbook the first sheet is read."""
    (tmp_path / "book.xlsx").write_bytes(excel(ROWS, ("rows", "notes", "old")))
    table = read_table(tmp_path / "book.xlsx")
    assert (len(table.frame), table.notes[0].partition(";")[0]) == (
        20,
        "warning: book.xlsx: sheet 'rows' is read, 2 more are ignored: 'notes', 'old'",
    )
