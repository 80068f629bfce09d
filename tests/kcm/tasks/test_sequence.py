"""The rows of a task survive the disk, and a sequence grows by a task."""

import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from benchmarks.sequences import read_rows
from kcm.config import parse_config
from kcm.tasks import SPLITS, Task, TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.sequence import (
    SCHEMA,
    Summary,
    alike,
    append_task,
    read_description,
    read_summary,
    write_description,
    write_rows,
)


def rows(split: str, **columns: list) -> pa.Table:
    """Rows of a split: one without content, but for the columns that are given."""
    count = len(columns["id"])
    values = {"text": [""] * count, "image": [b""] * count, "label": [0] * count, "group": [""] * count} | columns
    table = pa.table({name: pa.array(values[name], SCHEMA.field(name).type) for name in SCHEMA.names})
    return table.append_column("split", pa.array([split] * count, pa.string()))


@pytest.fixture
def task() -> Task:
    parts = [
        rows(
            split,
            id=[f"{split}-{i}" for i in range(3)],
            text=[f"Größe {i} of {split}" for i in range(3)],
            image=[b"", bytes([7, 0]), b""],
            label=[0, 1, -1],
            group=["d", "", ""],
        )
        for split in SPLITS
    ]
    return Task("first/one", ("a", "b"), pa.concat_tables(parts))


def test_rows_survive_the_disk_in_their_order(task: Task, tmp_path: Path) -> None:
    write_rows(tmp_path, 1, task.rows)
    assert read_rows(tmp_path, 1) == task.rows
    assert {split: len(part) for split, part in task.splits.items()} == dict.fromkeys(SPLITS, 3)
    before = (tmp_path / "task-0001.parquet").read_bytes()
    write_rows(tmp_path, 1, task.rows)
    assert (tmp_path / "task-0001.parquet").read_bytes() == before


def test_a_task_is_appended_and_what_was_there_stays(task: Task, tmp_path: Path) -> None:
    (parent := tmp_path / "parent").mkdir()
    write_rows(parent, 0, task.rows)
    write_description(parent, {"label_names": ["a", "b"], "tasks": [{"name": task.name, "label_names": ["a", "b"]}]})
    before = {path.name: path.read_bytes() for path in parent.iterdir()}
    more = replace(task, name="more", label_names=("newest",))
    for name in ("grown", "again"):
        shutil.copytree(parent, tmp_path / name)
    append_task(parent, tmp_path / "grown", more, ["a", "b", "newest"])
    grown = read_description(tmp_path / "grown")
    assert [each["name"] for each in grown["tasks"]] == [task.name, "more"]
    assert grown["label_names"] == ["a", "b", "newest"]
    assert read_rows(tmp_path / "grown", 1).equals(task.rows)
    assert read_rows(tmp_path / "grown", 0).equals(task.rows)
    assert {path.name: path.read_bytes() for path in parent.iterdir()} == before

    append_task(tmp_path / "grown", tmp_path / "again", replace(more, name="most"), grown["label_names"])
    assert read_description(tmp_path / "again")["grown"] == ["more", "most"]
    assert "grown" not in read_description(parent)


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
        (["1", "1.0", "01", "10", "2"], [("1", "01"), ("1", "1.0"), ("1.0", "01")]),
    ],
)
def test_labels_that_are_spelled_almost_alike_are_named(labels: list[str], pairs: list[tuple[str, str]]) -> None:
    assert alike(labels) == pairs
