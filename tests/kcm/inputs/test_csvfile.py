"""Rows of CSV files keep their places, and a quote that is left open hides no rows."""

from pathlib import Path

import pytest

from kcm.errors import DataError
from kcm.inputs.chunks import Chunk, read_chunks
from kcm.inputs.location import Location


def read(path: Path, text: str) -> list[Chunk]:
    path.write_text(text)
    return list(read_chunks(Location.of(path)))


def with_quotes(first: int, last: int, width: int) -> str:
    """260 rows; a stray quote opens in the text of row `first` and another one closes it in the text of row `last`."""
    rows = [[str(n), f"text {n}", "ab"[n % 2]] for n in range(1, 261)]
    rows[first - 1][1] = '"' + rows[first - 1][1]
    rows[last - 1][1] += '"'
    lines = [",".join(row[3 - width :]) for row in [["id", "text", "label"], *rows]]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("width", [2, 3])
def test_cell_that_swallows_rows_is_refused(tmp_path: Path, width: int) -> None:
    """Two stray quotes that swallow 40 rows are an error that names the row, the column and the count."""
    message = r"row 100, column 'text', holds 39 lines that read as rows: a quote is left open.*rows\.csv"
    with pytest.raises(DataError, match=message):
        read(tmp_path / "rows.csv", with_quotes(100, 140, width))


def test_swallowed_rows_are_found_in_unread_columns(tmp_path: Path) -> None:
    """The cell that swallows rows may lie in a column that nobody reads."""
    (tmp_path / "rows.csv").write_text(with_quotes(100, 140, 3))
    with pytest.raises(DataError, match="a quote is left open"):
        list(read_chunks(Location.of(tmp_path / "rows.csv"), lambda name: name == "label"))


@pytest.mark.parametrize("first", [0, 60])
def test_swallowed_rows_of_unique_cells_are_found(tmp_path: Path, first: int) -> None:
    """Rows without a repeated value are known by the shape of their ids."""
    rows = [f"row-{n},text {n} of its own" for n in range(first, first + 60)]
    rows[3] = rows[3].replace(",", ',"')
    rows[30] += '"'
    with pytest.raises(DataError, match="row 4, column 'text', holds 27 lines that read as rows"):
        read(tmp_path / "rows.csv", "\n".join(["id,text", *rows]))


def test_texts_of_many_lines_are_read(tmp_path: Path) -> None:
    """Letters, verses and lists with as many commas as the table has columns are cells, and their rows are named."""
    letter = "Dear Ann,\nthank you,\nand so on,\n" * 9
    verse = "The rain, it falls\nThe wind, it calls\n" * 9
    [chunk] = read(tmp_path / "rows.csv", f'text,label\n"{letter}",a\nplain,b\n"{verse}",a\n"two\nlines",b\n')
    assert (chunk.num_rows, chunk.broken) == (4, (0, 2, 3))


def test_few_swallowed_rows_are_named(tmp_path: Path) -> None:
    """Up to a handful of lines are no proof: the row is one with line breaks."""
    [chunk] = read(tmp_path / "rows.csv", with_quotes(100, 103, 3))
    assert (chunk.num_rows, chunk.broken) == (257, (99,))
