"""Bad rows are told apart, named with their ids, and counted."""

from __future__ import annotations

import pytest

from kcm.errors import DataError
from kcm.inputs.content import IMAGE, PROBE, TEXT
from kcm.tasks.rows import BadRow, Record, check_bad_rows, clean, read_bad_rows, write_bad_rows


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (Record("7", None, "a"), "missing text"),
        (Record("7", "  \n ", "a"), "empty text"),
        (Record("7", "text", None), "missing label"),
        (Record("7", "text", ""), "missing label"),
        (Record("7", "text", "nagative"), "label 'nagative' is not in the label list, did you mean 'negative'?"),
        (Record("7", "text", "a", group=None), "missing group"),
        (Record("7", "text", "a", task=None), "missing task"),
        (Record("7", "text", "a", split=None), "missing split"),
        (Record("7", "text", "a", split="holdout"), "unknown split 'holdout'"),
        (Record("1", "text", "a"), "duplicate id"),
    ],
)
def test_a_bad_row_is_listed_by_id_with_its_reason(record, reason):
    rows, bad = clean([Record("1", "fine", "a"), record, Record("2", "fine too", "negative")], ["a", "negative"])
    assert [row.id for row in rows] == ["1", "2"]
    assert [row.id for row in bad] == [record.id]
    assert bad[0].reason.startswith(reason)


def test_a_row_without_id_is_called_by_its_number():
    _, bad = clean([Record("1", "fine", "a"), Record(None, "text", "a"), Record("", "text", "a")], [])
    assert bad == [BadRow("row 2", "missing id"), BadRow("row 3", "missing id")]


def test_without_a_label_list_every_label_is_known():
    rows, bad = clean([Record("1", "x", "new"), Record("2", "y", "newer")], [])
    assert [row.label for row in rows] == ["new", "newer"]
    assert not bad


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", " Validation "])
def test_splits_go_by_many_names(name):
    rows, _ = clean([Record("1", "x", "a", split=name)], [])
    assert rows[0].split == "validate"


@pytest.mark.parametrize(("limit", "allowed"), [(2, 2), ("1%", 2), ("0.5%", 1), (0, 0), ("0%", 0), ("100%", 200)])
def test_bad_rows_fail_the_run_only_above_the_limit(limit, allowed):
    bad = [BadRow(str(i), "empty text") for i in range(allowed + 1)]
    check_bad_rows(bad[:allowed], 200, limit, "x.csv")
    with pytest.raises(DataError, match=f"{allowed + 1} of 200 rows are bad.*0: empty text"):
        check_bad_rows(bad, 200, limit, "x.csv")


def test_the_list_of_bad_rows_survives_the_disk(tmp_path):
    bad = (BadRow("1", "empty text"), BadRow('a "quoted", id\n', "missing label"))
    write_bad_rows(bad, tmp_path / "deep" / "bad.csv")
    assert read_bad_rows(tmp_path / "deep" / "bad.csv") == bad


PICTURE = Record("1", None, "a", image=PROBE.image)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (Record("7", "a text", "a"), "empty image"),
        (Record("7", "a text", "a", image=None), "missing image"),
        (Record("7", "a text", "a", image=b"a text"), "not an image of a known kind"),
        (Record("7", "a text", "a", image=b"", fault="no image file 'x.png'"), "no image file 'x.png'"),
    ],
)
def test_a_picture_that_cannot_be_used_is_a_bad_row_where_pictures_are_read(record: Record, fault: str) -> None:
    rows, bad = clean([PICTURE, record], [], IMAGE)
    assert [row.id for row in rows] == ["1"]
    assert [(row.id, row.reason.startswith(fault)) for row in bad] == [("7", True)]


def test_a_row_keeps_what_is_read_of_it() -> None:
    both = Record("1", "a text", "a", image=PROBE.image)
    kept = [clean([both], [], parts)[0][0] for parts in (TEXT, IMAGE, TEXT | IMAGE)]
    assert [(row.text, row.image) for row in kept] == [
        ("a text", b""),
        ("", PROBE.image),
        ("a text", PROBE.image),
    ]
