"""A run says what is in its rows."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from kcm.config import parse_config
from kcm.tasks import TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.summary import Summary, alike, read_summary


def summary_of(frame: pd.DataFrame, folder: Path, **columns: str) -> Summary:
    """The summary of a sequence of these rows, which is written to the folder `sequence`."""
    frame.to_csv(folder / "rows.csv", index=False)
    source = {"kind": "files", "path": str(folder / "rows.csv"), **columns}
    config = parse_config(TasksConfig, {"source": source, "scenario": "class_incremental", "num_tasks": 1})
    write_sequence(config, folder / "sequence", config.source.build(folder), seed=0)
    return read_summary(folder / "sequence")


def test_rows_labels_and_units_are_counted(tmp_path: Path) -> None:
    labels = ["billing", "billling", "cards", "cards"]
    frame = pd.DataFrame(
        {
            "text": [f"text number {number}" for number in range(200)] + [""],
            "label": [labels[number % 4] for number in range(200)] + ["cards"],
            "user": [f"user {number // 4}" for number in range(200)] + [""],
        }
    )
    found = summary_of(frame, tmp_path, group_column="user")
    assert found.labels == {"billing": 50, "billling": 50, "cards": 100}
    assert found.alike == [("billing", "billling")]
    assert (found.num_rows, found.num_bad) == (200, 1)
    (splits,) = found.rows.values()
    assert sum(splits.values()) == 200
    (units,) = found.certify_units.values()
    assert units * 4 == splits["certify"]  # users are drawn, each with four texts


def test_rows_of_equal_content_are_one_unit(tmp_path: Path) -> None:
    texts = [f"text number {number}" for number in range(200)] * 2 + [f"alone {number}" for number in range(200)]
    frame = pd.DataFrame({"text": texts, "label": ["cards", "billing"] * 300})
    frame.loc[200:399, "text"] = frame["text"][200:400].str.upper()
    found = summary_of(frame, tmp_path)
    rows = pq.read_table(tmp_path / "sequence" / "task-0000.parquet").to_pandas()
    repeat = ~rows["text"].str.startswith("alone")
    assert found.num_repeating == repeat.sum() == 400
    assert (rows["group"][~repeat] == "").all()
    assert rows[repeat].groupby(rows["text"].str.lower())["group"].nunique().eq(1).all()
    certify = rows[rows["split"] == "certify"]
    assert list(found.certify_units.values()) == [certify["text"].str.lower().nunique()]


@pytest.mark.parametrize(
    ("labels", "pairs"),
    [
        (["Card lost", "card_lost", "other"], [("Card lost", "card_lost")]),
        (["refund", "refund ", "other"], [("refund", "refund ")]),
        (["refund", "refunds", "returns"], [("refund", "refunds")]),
        (["transfer", "trasnfer"], [("transfer", "trasnfer")]),
        (["payment", "paymant"], [("payment", "paymant")]),
        (["class 10", "class 11", "class 1"], []),
        (["cat", "car", "cart"], []),
        (["positive", "negative"], []),
    ],
)
def test_labels_that_are_spelled_almost_alike_are_named(labels: list[str], pairs: list[tuple[str, str]]) -> None:
    assert alike(labels) == pairs
