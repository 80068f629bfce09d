"""Every format becomes every other; a file is whole or absent, and what keeps it from being written is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs

from kcm.errors import ArtefactError, KcmError
from kcm.inputs.location import Location
from kcm.inputs.rowfile import open_rows
from pipelines.batch.rowwriter import drafted, writing

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
    file = open_rows(source, "text")
    with writing(Location.of(target), file, ANSWERS) as write:
        for chunk in file.chunks(2):
            answers = {"label": [f"label {row}" for row in chunk["id"].to_pylist()], "confidence": [0.5] * len(chunk)}
            write(chunk["payload"], pa.table(answers, schema=ANSWERS))


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
    assert [row["label"] for row in rows] == ["label 0", "label 1", "label 2"]
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


@pytest.mark.parametrize("suffix", READ)
def test_an_interrupted_write_leaves_the_old_file_and_no_draft(tmp_path: Path, suffix: str) -> None:
    as_csv(tmp_path / "in.csv")
    target = tmp_path / f"out{suffix}"
    target.write_text("old", encoding="utf-8")
    with (
        pytest.raises(RuntimeError, match="stop"),
        writing(Location.of(target), open_rows(tmp_path / "in.csv", "text"), ANSWERS),
    ):
        raise RuntimeError("stop")
    assert target.read_text(encoding="utf-8") == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in.csv", target.name])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent/o.csv", r"no such folder.*absent"),
        ("x" * 300 + ".csv", "cannot write"),  # longer than any file system allows
        ("out.xlsx", r"unknown kind of file '\.xlsx'"),
    ],
)
def test_what_cannot_be_written_is_said_at_once(tmp_path: Path, name: str, message: str) -> None:
    as_csv(tmp_path / "in.csv")
    file = open_rows(tmp_path / "in.csv", "text")
    with pytest.raises(KcmError, match=message), writing(Location.of(tmp_path / name), file, ANSWERS):
        pass


def test_an_object_is_put_as_a_whole_or_not_at_all(put_anywhere: Callable[[str, bytes], str]) -> None:
    target = Location.of(put_anywhere("a.csv", b"old").replace("a.csv", "ö/b.csv"))
    with suppress(RuntimeError), drafted(target) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert target.kind() == fs.FileType.NotFound
    with drafted(target) as draft:
        draft.write_text("whole")
        assert target.kind() == fs.FileType.NotFound
    with target.open() as stream:
        assert stream.read() == b"whole"


def test_what_killed_writers_of_a_file_have_left_is_gone_when_it_is_there(tmp_path: Path) -> None:
    theirs, other = (tmp_path / f".{name}.{'0' * 32}.draft" for name in ("out.csv", "out.csv.b.csv"))
    theirs.touch()
    other.touch()
    with drafted(Location.of(tmp_path / "out.csv")) as draft:
        draft.touch()
    assert sorted(tmp_path.iterdir()) == [other, tmp_path / "out.csv"]


def test_a_bucket_that_does_not_exist_is_named(s3_server: str) -> None:
    target = Location.of(f"s3://absent/a.csv?endpoint_override={s3_server}")
    with pytest.raises(ArtefactError, match=r"the bucket 'absent' does not exist"), drafted(target) as draft:
        draft.touch()


def test_a_store_that_may_not_be_written_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(*_: object, **__: object) -> None:
        raise OSError("When initiating multiple part upload: AWS Error ACCESS_DENIED")

    monkeypatch.setattr("pipelines.batch.rowwriter.fs.copy_files", denied)
    target = Location.of("s3://rows/a.csv?region=us-east-1")
    with pytest.raises(ArtefactError, match=r"no right to write it \(s3://rows/a\.csv\)"), drafted(target) as draft:
        draft.touch()
