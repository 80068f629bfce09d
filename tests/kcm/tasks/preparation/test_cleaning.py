"""Bad rows are separated, and named by their ids."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kcm.inputs.content import IMAGE, PROBE, TEXT, VECTOR, Content
from kcm.tasks.preparation.facts import RowRules, facts_of
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.splits import SPLITS
from kcm.tasks.units import unit_digest


def clean(
    records: list[SourceRow], known: tuple[str, ...] = (), reads: Any = TEXT, **rules: Any
) -> tuple[pa.Table, list]:
    """The facts of the usable rows, and place, id and reason of the others."""
    facts = facts_of(rows_of(records), RowRules(known, reads, **rules))
    bad = facts.filter(facts["fault"].is_valid()).select(["place", "id", "fault"]).to_pylist()
    return facts.filter(facts["fault"].is_null()), [tuple(row.values()) for row in bad]


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (SourceRow("7", None, "a"), "missing text"),
        (SourceRow("7", "  \n ", "a"), "empty text"),
        (SourceRow("7", "text", None), "missing label"),
        (SourceRow("7", "text", ""), "missing label"),
        (SourceRow("7", "text", "nagative"), "label 'nagative' is not in the label list"),
        (SourceRow("7", "text", "a", group=None), "missing group"),
        (SourceRow("7", "text", "a", task=None), "missing task"),
        (SourceRow("7", "text", "a", split=None), "missing split"),
        (SourceRow("7", "text", "a", split="holdout"), "unknown split 'holdout'"),
        (SourceRow("7", "\x1c\u2003", "a"), "empty text"),
    ],
)
def test_a_bad_row_is_listed_by_id_with_its_reason(record, reason):
    rows, bad = clean([SourceRow("1", "fine", "a"), record, SourceRow("2", "fine too", "negative")], ("a", "negative"))
    assert rows["id"].to_pylist() == ["1", "2"]
    assert [(place, row_id) for place, row_id, _ in bad] == [(1, record.id)]
    assert bad[0][2].startswith(reason)


@pytest.mark.parametrize("name", ["val", "valid", "validation", "dev", " Validation "])
def test_splits_go_by_many_names(name):
    rows, _ = clean([SourceRow("1", "x", "a", split=name)])
    assert [SPLITS[origin] for origin in rows["origin"].to_pylist()] == ["validate"]


PICTURE = SourceRow("1", None, "a", image=PROBE.image)


@pytest.mark.parametrize(
    ("record", "fault"),
    [
        (SourceRow("7", "a text", "a"), "empty image"),
        (SourceRow("7", "a text", "a", image=None), "missing image"),
        (SourceRow("7", "a text", "a", image=b"a text"), "not an image of a known kind"),
        (SourceRow("7", "a text", "a", image=b"", fault="no image file 'x.png'"), "no image file 'x.png'"),
    ],
)
def test_unusable_picture_is_a_bad_row(record: SourceRow, fault: str) -> None:
    rows, bad = clean([PICTURE, record], reads=IMAGE)
    assert rows["id"].to_pylist() == ["1"]
    assert [(row_id, reason.startswith(fault)) for _, row_id, reason in bad] == [("7", True)]


def test_a_vector_with_a_number_that_is_none_is_a_bad_row() -> None:
    vectors = [np.array(values, np.float32) for values in ([1, 2], [np.nan, 0], [0, np.inf])]
    rows, bad = clean([SourceRow(str(i), "", "a", vector=vector) for i, vector in enumerate(vectors)], reads=VECTOR)
    assert rows["id"].to_pylist() == ["0"]
    assert {reason for *_, reason in bad} == {"the vector holds a number that is not finite"}


def test_what_is_not_read_is_no_part_of_the_content() -> None:
    both, text = SourceRow("1", "a text", "a", image=PROBE.image), SourceRow("2", "A  text", "a", image=b"other")
    alike, _ = clean([both, text])
    assert len(set(alike["content"].to_pylist())) == 1
    other, _ = clean([both, SourceRow("2", "A  text", "a", image=PICTURE.image)], reads=TEXT | IMAGE)
    assert set(other["content"].to_pylist()) == {unit_digest(Content("a text", PROBE.image))[:16].hex()}


def test_train_rows_alone_may_lack_a_label() -> None:
    records = [SourceRow("1", "x", None), SourceRow("2", "y", "", split="train"), SourceRow("3", "z", "", split="test")]
    rows, bad = clean(records, unlabelled=True)
    assert rows["id"].to_pylist() == ["1", "2"]
    assert bad == [(2, "3", "missing label")]


def test_rows_of_one_split_of_a_label_lie_together() -> None:
    """A shard of a task reads few parts of a block, so they are in this order in the block's file."""
    records = [SourceRow(str(i), f"text {i}", "ab"[i % 2], split=("train", "test")[i // 2 % 2]) for i in range(40)]
    rows, _ = clean(records)
    pairs = list(zip(rows["label"].to_pylist(), rows["origin"].to_pylist(), strict=True))
    assert pairs == sorted(pairs)
    assert rows["row"].to_pylist() == list(range(40))
