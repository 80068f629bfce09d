"""Every format becomes every other, with all columns of the input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.inputs.chunks import read_chunks
from kcm.inputs.location import Location
from kcm.inputs.tables import scanned
from pipelines.batch.rowwriter import writing

ANSWERS = pa.schema([("label", pa.string()), ("confidence", pa.float64())])
RECORDS = [
    {"text": 'plain "quoted", with\nlines', "n": 1, "nested": {"deep": [1, 2]}},
    {"text": "ärger", "n": None, "nested": {"deep": []}},
    {"text": "third", "n": 3, "nested": None},
]


def as_csv(path: Path) -> None:
    flat = [record | {"nested": json.dumps(record["nested"])} for record in RECORDS]
    pd.DataFrame(flat).to_csv(path, index=False)


def as_jsonl(path: Path) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")


def as_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(RECORDS), path)


def copy(source: Path, target: Path) -> None:
    location = Location.of(source)
    with writing(target, target.suffix, scanned(location)[0], ANSWERS) as write:
        for chunk in read_chunks(location):
            labels = [f"label {chunk.first + row}" for row in range(chunk.num_rows)]
            write(chunk, pa.table({"label": labels, "confidence": [0.5] * len(labels)}, schema=ANSWERS))


READ: dict[str, Callable[[Path], list[dict[str, object]]]] = {
    ".csv": lambda path: pd.read_csv(path, keep_default_na=False).to_dict("records"),
    ".jsonl": lambda path: [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()],
    ".parquet": lambda path: pq.read_table(path).to_pylist(),
}
WRITE = {".csv": as_csv, ".jsonl": as_jsonl, ".parquet": as_parquet}


@pytest.mark.parametrize("source", WRITE)
@pytest.mark.parametrize("target", READ)
def test_every_format_becomes_every_other_with_rows_in_order_and_columns_kept(
    tmp_path: Path, source: str, target: str
) -> None:
    WRITE[source](tmp_path / f"in{source}")
    copy(tmp_path / f"in{source}", tmp_path / f"out{target}")
    rows = READ[target](tmp_path / f"out{target}")
    assert [row["text"] for row in rows] == [record["text"] for record in RECORDS]
    assert [row["label"] for row in rows] == ["label 1", "label 2", "label 3"]
    assert [row["confidence"] for row in rows] == [0.5] * 3
    assert [list(row) for row in rows] == [["text", "n", "nested", "label", "confidence"]] * 3
    if source == target != ".csv":
        assert [row["nested"] for row in rows] == [record["nested"] for record in RECORDS]


def test_json_has_null_where_parquet_has_nan(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "score": [float("nan")]}), tmp_path / "in.parquet")
    copy(tmp_path / "in.parquet", tmp_path / "out.jsonl")
    assert READ[".jsonl"](tmp_path / "out.jsonl")[0]["score"] is None


@pytest.mark.parametrize("target", READ)
def test_text_that_utf8_cannot_hold_is_carried_along(tmp_path: Path, target: str) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "a", "x": "\\ud800"}\n', encoding="utf-8")
    copy(tmp_path / "in.jsonl", tmp_path / f"out{target}")
    assert READ[target](tmp_path / f"out{target}")[0]["x"] in ("\ud800", "\\ud800")


def test_json_lines_keep_nested_mixed_and_missing_values(tmp_path: Path) -> None:
    records = [{"text": "a", "more": {"deep": [1, None]}, "n": 2**70}, {"text": "b", "more": 3}, {"n": 1.5}]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, records)) + "\n\n", encoding="utf-8")
    copy(tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert [
        {name: row[name] for name in row if name not in ANSWERS.names} for row in READ[".jsonl"](tmp_path / "out.jsonl")
    ] == records
    copy(tmp_path / "in.jsonl", tmp_path / "out.parquet")
    assert [row["n"] for row in READ[".parquet"](tmp_path / "out.parquet")] == [str(2**70), None, "1.5"]


def test_parquet_columns_keep_their_types(tmp_path: Path) -> None:
    table = pa.table({"when": pa.array([0, None], pa.timestamp("ms")), "v": [[1.0], None]})
    pq.write_table(table, tmp_path / "in.parquet")
    copy(tmp_path / "in.parquet", tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet").select(["when", "v"]).equals(table)
