"""Rows without a recorded answer are counted, and the first is named, whatever the order and however they are cut."""

from __future__ import annotations

import pyarrow as pa
import pytest

from kcm.errors import DataError
from kcm.large import coverage
from kcm.large.coverage import Coverage


def chunks(ids: list[str], size: int) -> list[pa.ChunkedArray]:
    return [pa.chunked_array([ids[start : start + size]]) for start in range(0, len(ids), size)]


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_lacks_an_answer_is_counted_and_the_first_in_order_is_named(size, monkeypatch) -> None:
    monkeypatch.setattr(coverage, "IDS_PER_FILE", 10)
    rows = [f"row {number}" for number in range(50)]
    answered = [*reversed(rows[:20]), "of another set", *rows[22:49]]
    found = Coverage.of(chunks(answered, size), lambda: chunks(rows, size))
    assert found == Coverage(50, 3, "row 20")
    with pytest.raises(DataError, match=r"3 of 50 rows have no recorded answer, the first is 'row 20' .*table\.csv"):
        found.require("table.csv", "Add them")


def test_where_nothing_lacks_nothing_is_raised() -> None:
    found = Coverage.of(chunks(["a", "b"], 1), lambda: chunks(["b"], 1))
    assert found == Coverage(1, 0, "")
    found.require("table.csv", "")
