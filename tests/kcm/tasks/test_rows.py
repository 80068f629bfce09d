"""Bad rows are listed, counted and limited."""

import pytest

from kcm.errors import DataError
from kcm.tasks.rows import BadRow, check_bad_rows, read_bad_rows, write_bad_rows


@pytest.mark.parametrize(
    ("limit", "allowed"), [(2, 2), ("1%", 2), ("0.5%", 1), (0, 0), ("0%", 0), ("14.5%", 29), ("100%", 200)]
)
def test_bad_rows_fail_the_run_only_above_the_limit(limit, allowed):
    bad = [BadRow(str(i), "empty text") for i in range(allowed + 1)]
    check_bad_rows(bad[:allowed], allowed, 200, limit, "x.csv")
    with pytest.raises(DataError, match=f"{allowed + 1} of 200 rows are bad.*0: empty text"):
        check_bad_rows(bad, allowed + 1, 200, limit, "x.csv")


def test_the_list_of_bad_rows_survives_the_disk(tmp_path):
    bad = (BadRow("1", "empty text"), BadRow('a "quoted", id\n', "missing label"))
    write_bad_rows(bad, tmp_path / "deep" / "bad.csv")
    assert read_bad_rows(tmp_path / "deep" / "bad.csv") == bad
