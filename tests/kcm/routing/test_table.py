"""Any table of logged answers is read as it is meant, or refused by the names of its rows."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from kcm.certification.ledger import unit_hashes
from kcm.errors import ConfigError, DataError
from kcm.routing.config import RouteColumns
from kcm.routing.table import RoutingTable, read_table, table_of
from kcm.tasks.units import content_names, text_keys

CORRECT = {"small_correct": "s", "large_correct": "l"}
PREDICTED = {"small_prediction": "s", "large_prediction": "l", "label": "y"}


def read(path: Path, **columns: Any) -> RoutingTable:
    return read_table(path, RouteColumns(**columns))


@pytest.mark.parametrize("written", [["True", "False"], ["1", "0"], ["1.0", "0.0"], ["yes", "no"], [" TRUE ", "false"]])
def test_correctness_is_read_however_tools_write_it(table_file: Any, written: list[str]) -> None:
    table = read(table_file(s=written, l=written[::-1]), **CORRECT)
    assert table.small_correct.tolist() == [True, False]
    assert table.large_correct.tolist() == [False, True]


def test_text_with_commas_newlines_and_other_scripts_survives(table_file: Any) -> None:
    texts = ['one, "two"', "first\nsecond", "naïve 日本語 🙂"]
    table = read(table_file(t=texts, s=[1, 0, 1], l=[1, 1, 1]), **CORRECT, text="t")
    assert table.text is not None
    assert table.text.tolist() == texts


def test_predictions_compare_as_written_except_whole_numbers(tmp_path: Path) -> None:
    """Promise: predictions are compared as written but for the decimals of whole numbers."""
    path = tmp_path / "t.csv"
    path.write_text("s,l,y\n1.0,2,1\n2.0,,2\n,3,3\n", encoding="utf-8")
    table = read(path, **PREDICTED)
    assert table.small_correct.tolist() == [True, True, False]
    assert table.large_correct.tolist() == [False, False, True]
    assert table.large_error.tolist() == [False, True, False]
    assert [note.split(" gave")[0] for note in table.notes] == ["the small model", "the large model"]


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("small_correct", [0.2, 1], r"must be 0 or 1, true or false: row 1: '0.2' .*Compare scores with a threshold"),
        ("confidence", [0.5, 1.2], r"a confidence must lie in \[0, 1\]: row 2: '1.2' \(.*column 'c'\)"),
        ("confidence", [-0.1, 0.2], r"must lie in \[0, 1\]: row 1"),
        ("confidence", [0.5, None], "a confidence must be a number: row 2: empty"),
        ("score", [0.5, "inf"], "a score must be finite: row 2"),
        ("score", ["high", 1], "a score must be a number: row 1: 'high'"),
        ("large_cost", [1, -1], "a cost must be at least 0: row 2"),
        ("split", ["certify", "elsewhere"], "a split must be one of .*: row 2: 'elsewhere'"),
        ("id", ["a", "a"], "an id must be unique: 2: 'a'"),
    ],
)
def test_a_bad_cell_is_named_by_row_and_column(table_file: Any, column: str, values: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read(table_file(s=[1, 0], l=[1, 1], c=values), **(CORRECT | {column: "c"}))


def test_an_unknown_column_names_the_nearest(table_file: Any) -> None:
    with pytest.raises(DataError, match=r"no column 'confidnce' \(confidence\).* Did you mean 'confidence'"):
        read(table_file(s=[1], l=[1], confidence=[0.5]), **CORRECT, confidence="confidnce")


def test_columns_of_equal_names_are_refused() -> None:
    """A frame of the caller's may have them; a file with them is refused when it is read."""
    frame = pd.DataFrame([[1, 1, "a", "b"]], columns=["s", "l", "note", "note"])
    with pytest.raises(DataError, match="several columns are called 'note'"):
        table_of(frame, RouteColumns(**CORRECT), "frame")


def test_feature_columns_may_be_named_by_their_prefix(table_file: Any) -> None:
    table = read(table_file(s=[1], l=[1], f_1=[0.5], f_2=[2], g=[3]), **CORRECT, features=("g", "f_*"))
    assert table.features is not None
    np.testing.assert_array_equal(table.features, [[3, 0.5, 2]])


@pytest.mark.parametrize(
    "columns",
    [{}, {"small_correct": "s"}, {**CORRECT, "label": "y"}, {**PREDICTED, "small_correct": "s"}, {"label": "y"}],
)
def test_it_must_be_clear_who_was_right(columns: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="no columns say which model was right"):
        RouteColumns.model_validate(columns).check()


def test_files_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    (tmp_path / "header.csv").write_text("s,l\n")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no more")
    for name, message in {
        "absent.csv": "no such file",
        "empty.csv": "the file is empty",
        "header.csv": "no rows",
        "broken.parquet": "cannot read the file",
        "table.xlsx": r"unknown kind of file '\.xlsx'",
    }.items():
        with pytest.raises(DataError, match=message):
            read(tmp_path / name, **CORRECT)


def test_rows_equal_in_every_column_are_one_unit(table_file: Any) -> None:
    """Copies of a row count once, with a text too, and a note says so; rows with ids are rows of their own."""
    copied = table_file(s=[1, 0, 1, 1], l=[1, 1, 1, 1], c=[0.5, 0.5, 0.5, 0.5], t=["a", "a", "a", "b"])
    for more in ({}, {"text": "t"}):
        table = read(copied, **CORRECT, **more)
        assert table.name.tolist() == ["row 1", "row 2", "row 4"]
        assert "1 rows repeat others in every column and count once; name an id column" in table.notes[0]
    named = table_file(s=[1, 0, 1], l=[1, 1, 1], i=["x", "y", "z"])
    assert len(read(named, **CORRECT, id="i")) == 3


def test_copies_in_other_splits_are_detected(table_file: Any) -> None:
    """Rows that only their split tells apart are copies, unless a split holds such a row twice."""
    columns = {**CORRECT, "split": "p"}
    copied = table_file(s=[1, 0, 1], l=[1, 1, 1], n=["a", "b", "a"], p=["validate", "validate", "certify"])
    table = read(copied, **columns)
    assert table.item[0] == table.item[2] != table.item[1]
    alike = table_file(s=[1, 1, 1], l=[1, 1, 1], p=["validate", "validate", "certify"])
    table = read(alike, **columns)
    assert len(table) == len(set(table.item)) == 2


def test_a_ledger_knows_a_file_by_all_its_texts(table_file: Any) -> None:
    """Whichever column is named, the units are those of all texts, and of the whole file; short cells are no texts."""
    texts = [f"a long enough question {number}" for number in range(3)]
    file = table_file(s=[1, 0, 1], l=[1, 1, 1], q=texts, i=["x1", "x2", "x3"], c=["a", "b", "c"])
    named = [read(file, **CORRECT, **more).ledger_units() for more in ({}, {"id": "i"}, {"text": "q"})]
    contents = unit_hashes(content_names(pa.table({"text": text_keys(pa.array(texts))})))
    assert all(units["content"].tolist() == contents.tolist() for units in named)
    assert [len(units["id"]) for units in named] == [0, 3, 0]
    scores = read(table_file(s=[1, 0, 1], l=[1, 1, 1], c=[0.1, 0.2, 0.3]), **CORRECT)
    assert not any(map(len, scores.ledger_units().values()))
