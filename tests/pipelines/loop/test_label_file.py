"""Labels of people: audited items out as a table, and back in whole or not at all."""

from pathlib import Path

import pandas as pd
import pytest

from kcm.errors import DataError
from pipelines.loop.label_file import read_labels, write_audits
from tests.pipelines.loop.windows import made_window


def test_audits_go_out_without_the_answer_and_come_back(tmp_path: Path) -> None:
    """Promise: every item that the large model was asked about is there, with the probability of being asked."""
    window, file = made_window(200), tmp_path / "audits.csv"
    number = write_audits(window, file)
    table = pd.read_csv(file)
    assert number == len(table) == sum(label is not None for label in window["large_label"].to_pylist())
    assert set(table["probability"]) == {0.2, 1.0}
    assert "large_label" not in table.columns
    with pytest.raises(DataError, match="no row has a label"):
        read_labels(file)
    table["label"] = ["yes", " no ", *[None] * (len(table) - 2)]
    table.to_csv(file, index=False)
    assert read_labels(file) == {table["id"][0]: "yes", table["id"][1]: "no"}


def test_a_text_of_a_stranger_is_no_formula(tmp_path: Path) -> None:
    window = made_window(5, share=1.0, text=["=1+1", "@x", "-2", "plain", "+cmd"])
    write_audits(window, tmp_path / "audits.csv")
    assert [text[0] for text in pd.read_csv(tmp_path / "audits.csv", dtype=str)["text"]] == ["'", "'", "-", "p", "'"]


@pytest.mark.parametrize(
    ("rows", "why"), [("id,label\na/0,yes\na/0,no\n", "has two labels"), ("id,text\na/0,x\n", "no column 'label'")]
)
def test_a_faulty_file_is_not_read(tmp_path: Path, rows: str, why: str) -> None:
    (tmp_path / "labels.csv").write_text(rows)
    with pytest.raises(DataError, match=why):
        read_labels(tmp_path / "labels.csv")
