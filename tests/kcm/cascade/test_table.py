"""The outcome table: what it derives, and what it keeps through a file."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq

from kcm.cascade.table import OutcomeTable
from tests.outcome_files import read_outcomes


def test_who_is_right_follows_from_the_answers(table):
    assert table.small_label.tolist() == [0, 2, 2, 0]
    assert table.small_correct.tolist() == [True, False, True, False]
    assert table.large_correct.tolist() == [True, True, False, False]


def test_a_file_gives_back_the_same_table(columns, tmp_path):
    table = OutcomeTable(**columns | {"group": np.array(["g", None, "h", "g"], dtype=object)})
    pq.write_table(table.to_arrow(), tmp_path / "table.parquet")
    again = read_outcomes(tmp_path / "table.parquet")
    for field in dataclasses.fields(table):
        mine, theirs = getattr(table, field.name), getattr(again, field.name)
        np.testing.assert_array_equal(mine, theirs, err_msg=field.name)
        assert getattr(mine, "dtype", None) == getattr(theirs, "dtype", None)
