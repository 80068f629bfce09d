"""Bad rows are separated, and named by their ids."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.inputs.content import IMAGE, PROBE, TEXT, VECTOR
from kcm.tasks.plan.splits import SPLITS
from kcm.tasks.preparation import cleaning
from kcm.tasks.preparation.cleaning import Rules
from kcm.tasks.rows import Record, rows_of


def clean(records: list[Record], known: tuple[str, ...] = (), reads: Any = TEXT, **rules: Any) -> tuple[pa.Table, list]:
    """The usable rows, and position, id and reason of the others."""
    found = cleaning.clean(rows_of(records), Rules(known, reads, **rules))
    return found.rows, [tuple(row.values()) for row in found.faults.to_pylist()]


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
        (Record("7", "\x1c\u2003", "a"), "empty text"),
    ],
)
def test_a_bad_row_is_listed_by_id_with_its_reason(record, reason):
    rows, bad = clean([Record("1", "fine", "a"), record, Record("2", "fine too", "negative")], ("a", "negative"))
    assert rows["id"].to_pylist() == ["1", "2"]
    assert [(place, row_id) for place, row_id, _ in bad] == [(1, record.id)]
    assert bad[0][2].startswith(reason)


def test_a_row_without_id_is_known_by_its_place():
    _, bad = clean([Record("1", "fine", "a"), Record(None, "text", "a"), Record("", "text", "a")])
    assert bad == [(1, None, "missing id"), (2, "", "missing id")]


def test_without_a_label_list_every_label_is_known():
    rows, bad = clean([Record("1", "x", "new"), Record("2", "y", "newer")])
    assert rows["label"].to_pylist() == ["new", "newer"]
    assert not bad


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", " Validation "])
def test_splits_go_by_many_names(name):
    rows, _ = clean([Record("1", "x", "a", split=name)])
    assert [SPLITS[origin] for origin in rows["origin"].to_pylist()] == ["validate"]


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
    rows, bad = clean([PICTURE, record], reads=IMAGE)
    assert rows["id"].to_pylist() == ["1"]
    assert [(row_id, reason.startswith(fault)) for _, row_id, reason in bad] == [("7", True)]


def test_a_vector_with_a_number_that_is_none_is_a_bad_row() -> None:
    vectors = [np.array(values, np.float32) for values in ([1, 2], [np.nan, 0], [0, np.inf])]
    rows, bad = clean([Record(str(i), "", "a", vector=each) for i, each in enumerate(vectors)], reads=VECTOR)
    assert rows["vector"].to_pylist() == [[1, 2]]
    assert {reason for *_, reason in bad} == {"the vector holds a number that is not finite"}


def test_a_row_keeps_what_is_read_of_it() -> None:
    both = Record("1", "a text", "a", image=PROBE.image)
    for parts, names in ((TEXT, {"text"}), (IMAGE, {"image"}), (TEXT | IMAGE, {"text", "image"})):
        rows, _ = clean([both], reads=parts)
        assert {"text", "image", "vector"} & set(rows.column_names) == names


def test_train_rows_alone_may_lack_a_label() -> None:
    records = [Record("1", "x", None), Record("2", "y", "", split="train"), Record("3", "z", "", split="test")]
    rows, bad = clean(records, unlabelled=True)
    assert rows["id"].to_pylist() == ["1", "2"]
    assert bad == [(2, "3", "missing label")]


def test_a_table_of_bad_rows_alone_leaves_none() -> None:
    rows, bad = clean([Record("1", "", "a"), Record("2", None, "a")])
    assert (len(rows), len(bad)) == (0, 2)
