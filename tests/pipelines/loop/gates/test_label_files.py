"""Drawn items go out as a file and what people said comes back, from spreadsheets and from Label Studio alike."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from kcm.errors import DataError
from pipelines.loop.gates.items_to_label import DrawnItem
from pipelines.loop.gates.label_files import FORMS, read_answers, write_items

HOSTILE = ('=HYPERLINK("http://x";"y")', "+1", "-1", "@SUM(A1)", "\t=1", "'=1", 'a, "b"\nc; d', "<b>it</b>")


def item(
    number: int, text: str | None, label: str | None = None, *, skipped: bool = False, image: Any = None
) -> DrawnItem:
    state = "skipped" if skipped else "labelled" if label else "drawn"
    return DrawnItem(f"r{number}/0", 0.25, state, label, text, image, "films")


@pytest.mark.parametrize("form", FORMS)
def test_what_was_said_comes_back_as_it_went_out(tmp_path: Path, form: str) -> None:
    items = [item(0, "a", "=yes"), item(1, "b", skipped=True), item(2, "c"), item(3, None, "none of these", image=b"x")]
    write_items(items, tmp_path / f"items{form}")
    assert read_answers(tmp_path / f"items{form}") == {"r0/0": "=yes", "r1/0": None, "r3/0": "none of these"}
    assert "0.25" in (tmp_path / f"items{form}").read_text()  # the probability with which an item was drawn


@pytest.mark.parametrize("form", FORMS)
def test_huge_html_or_multiline_text_round_trips(tmp_path: Path, form: str) -> None:
    """Promise: whatever text an item has, its label is read from the file that went out."""
    texts = ("<b>&lt;</b>" * 100_000, '<script>alert("1")</script>', "a\u2028b\x0bc\x85d\re\r\nf\x1cg")
    write_items([item(number, text, "yes") for number, text in enumerate(texts)], tmp_path / f"items{form}")
    assert read_answers(tmp_path / f"items{form}") == {f"r{number}/0": "yes" for number in range(len(texts))}


def test_no_cell_is_a_formula_and_no_model_s_answer_is_shown(tmp_path: Path) -> None:
    file = tmp_path / "items.csv"
    write_items([item(number, text) for number, text in enumerate(HOSTILE)], file)
    with file.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert list(rows[0]) == ["id", "text", "task", "probability", "label", "skip"]
    for row, text in zip(rows, HOSTILE, strict=True):
        assert row["text"].lstrip("'") == text.lstrip("'")
        assert row["text"] in ("+1", "-1") or not row["text"].startswith(("=", "+", "-", "@", "\t", "\r"))


WINDOWS = 'id;text;label\nr1/0;"\u00e9, \u00fc";s\u00fc\u00df\n'.encode("cp1252")
UTF16 = "id\ttext\tlabel\tmore\r\n\r\nr1/0\t\tyes\t\r\nr2/0\r\n".encode("utf-16")
NUMBERS = b'{"id": "r1/0", "label": 0}\n\n{"id": "r2/0", "label": null, "skip": true}'
NULLS = [
    {"data": {"id": "r1/0"}, "annotations": None},
    {"data": {"id": "r2/0"}, "annotations": [{"result": None, "was_cancelled": True}]},
]


@pytest.mark.parametrize(
    ("name", "text", "answers"),
    [
        ("a.csv", WINDOWS, {"r1/0": "s\u00fc\u00df"}),
        ("a.csv", UTF16, {"r1/0": "yes"}),
        ("a.csv", "\ufeffid;text;task;label;skip\nr1/0;a;;yes;\n".encode(), {"r1/0": "yes"}),
        ("a.jsonl", NUMBERS, {"r1/0": "0", "r2/0": None}),
        ("a.json", json.dumps(NULLS).encode(), {"r2/0": None}),
    ],
    ids=["Windows", "UTF-16 with more columns, an empty and a short row", "BOM", "numbers as labels", "nulls"],
)
def test_files_that_other_programs_write_are_read(tmp_path: Path, name: str, text: bytes, answers: Any) -> None:
    (tmp_path / name).write_bytes(text)
    assert read_answers(tmp_path / name) == answers


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "id,label,skip\nr1/0,no,yes\n", "labelled and skipped"),
        ("a.csv", "id,label\nr1/0,yes\nr1/0,no\n", "two labels"),
        ("a.csv", "id,lable\nr1/0,yes\n", "there is no 'label'"),
        ("a.xlsx", "", "unknown kind of file '.xlsx'"),
        (
            "a.json",
            '[{"data": {"id": "r1/0"}, "annotations": [{"result": [{"value": {"choices": ["yes", "no"]}}]}]}]',
            "2 labels in one annotation",
        ),
        ("a.json", '[{"data": {"id": "r1/0"}, "annotations": "x"}]', r"no task of Label Studio \(.*, row 1\)"),
    ],
)
def test_a_file_with_one_bad_row_is_refused_in_a_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message) as refused:
        read_answers(tmp_path / name)
    assert "\n" not in str(refused.value)
