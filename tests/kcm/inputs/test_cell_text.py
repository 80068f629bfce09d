"""No text becomes a formula of a spreadsheet, and a text read back is the same text."""

import csv
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kcm.inputs.cell_text import guarded, unguarded
from kcm.inputs.chunks import Chunk
from kcm.inputs.tables import read_frame
from kcm.labelling.output import write_frame
from kcm.tasks.rows import BadRow, read_bad_rows, write_bad_rows
from pipelines.batch.outputs import writing

HOSTILE = ["=cmd|' /C calc'!A0", "@SUM(A1)", "+1+cmd", "-2+3", "\t=1", "＝1+1", "'=1", "''@x"]
HARMLESS = ["-5", "+3.20", "-1e-5", "-", "a=b", "'tis", "'-5", "-12%", "", " =1"]


@given(st.text(st.sampled_from("'=+-@\t\r\n1.a＝ "), max_size=6))
def test_guard_is_undone_by_reading(cell: str) -> None:
    assert unguarded(guarded(cell)) == cell


@pytest.mark.parametrize("cell", HARMLESS)
def test_numbers_and_plain_texts_are_left_alone(cell: str) -> None:
    assert guarded(cell) == cell


def check(path: Path, delimiter: str = ",") -> list[list[str]]:
    """The cells that a spreadsheet sees, none of which is a formula."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter=delimiter))
    assert not [cell for row in rows for cell in row if cell.startswith(("=", "@", "+1+", "-2+", "\t", "＝"))]
    return rows


@pytest.mark.parametrize("kind", [".csv", ".tsv"])
def test_labelled_table_reads_back(tmp_path: Path, kind: str) -> None:
    frame = pd.DataFrame({"=text": [*HOSTILE, *HARMLESS], "number": range(len(HOSTILE + HARMLESS))})
    write_frame(frame.assign(number=-frame["number"]), tmp_path / f"table{kind}")
    check(tmp_path / f"table{kind}", "\t" if kind == ".tsv" else ",")
    again = read_frame(tmp_path / f"table{kind}", [kind])
    assert again["=text"].tolist() == [*HOSTILE, *HARMLESS]
    assert again["number"][1] == "-1"


def test_bad_rows_read_back(tmp_path: Path) -> None:
    rows = tuple(BadRow(cell, f"unknown label {cell!r}", cell, number) for number, cell in enumerate(HOSTILE))
    write_bad_rows(rows, tmp_path / "bad_rows.csv")
    check(tmp_path / "bad_rows.csv")
    assert read_bad_rows(tmp_path / "bad_rows.csv") == rows


def test_predicted_rows_read_back(tmp_path: Path) -> None:
    texts, answers = pa.table({"@text": HOSTILE}), pa.table({"answer": HOSTILE[::-1]})
    with writing(tmp_path / "out.csv", ".csv", texts.schema, answers.schema) as write:
        write(Chunk(texts, 1, tuple(texts.column_names)), answers)
    check(tmp_path / "out.csv")
    again = read_frame(tmp_path / "out.csv", [".csv"])
    assert again["@text"].tolist() == HOSTILE
    assert again["answer"].tolist() == HOSTILE[::-1]
