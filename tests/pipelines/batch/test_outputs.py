"""The files of a prediction: what is read, what is written, what is finished, and what cannot be used."""

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kcm.errors import ArtefactError, KcmError
from kcm.inputs import location
from kcm.inputs.chunks import read_chunks
from kcm.inputs.location import Location
from kcm.inputs.tables import scanned
from pipelines.batch.outputs import FileRecord, PredictedFile, predicted_files, writing
from tests.kcm.inputs.table_files import csv_text, json_lines


@pytest.fixture(autouse=True)
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(location, "SETTLED_S", -1.0)  # these files were written a moment ago


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files of rows, one deeper, and what is none."""
    for name in ("rows/a.csv", "rows/2024/b.jsonl.gz", "rows/README.md", "rows/.hidden.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("text\n")
    return tmp_path / "rows"


def names(parts: list[PredictedFile]) -> list[tuple[str, str]]:
    return [(part.source.name, part.storage.name(part.target)) for part in parts]


def finish(part: PredictedFile, command: str = "one", unfinished: int = 0) -> FileRecord:
    """Make a part as a prediction does."""
    with part.drafted(part.hidden) as draft:
        draft.write_text("answers")
    record = FileRecord(
        command=command,
        source=str(part.source),
        stamp=part.source.stamp(),
        size=len("answers"),
        routes={"small": 1},
        unfinished=unfinished,
    )
    part.write(record)
    return record


@pytest.mark.parametrize("suffix", [None, ".parquet"])
def test_a_folder_becomes_a_folder_with_files_of_the_same_names(
    folder: Path, tmp_path: Path, suffix: str | None
) -> None:
    parts = predicted_files(folder, tmp_path / "answers", suffix)
    assert names(parts) == [
        ("b.jsonl.gz", f"2024/b{suffix or '.jsonl'}"),
        ("a.csv", f"a{suffix or '.csv'}"),
    ]


def test_a_bucket_is_written_as_a_folder_is(node_bucket: str, folder: Path) -> None:
    (folder / "c ö%41#.csv").write_text("text\n")
    first, _, third = predicted_files(f"{folder}/*.csv", f"{node_bucket}/out") + predicted_files(
        folder / "a.csv", f"{node_bucket}/other.csv"
    )
    assert names([first, third]) == [("a.csv", "a.csv"), ("a.csv", "other.csv")]
    made = finish(first)
    assert first.finished("one", overwrite=False) == made
    assert third.finished("one", overwrite=False) is None
    assert not first.target.exists()
    with pytest.raises(ArtefactError, match="the output exists"):
        first.finished("two", overwrite=False)


def test_part_is_reused_only_for_equal_rows_model_settings(folder: Path, tmp_path: Path) -> None:
    """Promise: a part is finished for the same rows model and settings alone."""
    (part,) = predicted_files(folder / "a.csv", tmp_path / "out.csv")
    assert part.finished("one", overwrite=False) is None
    record = finish(part)
    assert part.finished("one", overwrite=False) == part.finished("one", overwrite=True) == record
    finish(part, unfinished=1)
    assert part.finished("one", overwrite=False) is None, "the large model is asked again"
    finish(part)
    (folder / "a.csv").write_text("text\nnew\n")
    assert part.finished("one", overwrite=False) is None, "the same command on new rows"


def test_foreign_output_is_refused_unless_replaced(folder: Path, tmp_path: Path) -> None:
    """Promise: what something else has written is refused unless it is to be replaced."""
    (part,) = predicted_files(folder / "a.csv", out := tmp_path / "out.csv")
    out.write_text("mine")
    (folder / "c.csv").write_text("text\nother\n")
    (other,) = predicted_files(folder / "c.csv", out)
    for change, asked, command in (
        (lambda: None, part, "one"),
        (lambda: finish(part), part, "two"),
        (lambda: finish(part), other, "one"),
        (lambda: out.write_text("answers, edited"), part, "one"),
    ):
        change()
        with pytest.raises(ArtefactError, match=r"the output exists.*out\.csv.*--overwrite"):
            asked.finished(command, overwrite=False)
        assert asked.finished(command, overwrite=True) is None


@pytest.mark.parametrize(
    ("source", "out", "message"),
    [
        ("absent.csv", "out.csv", r"no such file \(.*absent\.csv\)"),
        ("rows/*", "out", r"unknown kind of file '\.md' \(.*README\.md\)"),
        ("rows/a.csv", "out", r"unknown kind of file '' \(.*out\)"),
        ("rows/a.csv", "rows/a.csv", "the output would replace the input"),
        ("rows/a.csv", "/proc/out.csv", "cannot write here"),
        ("rows", "out.csv", "the answers to several files go to a folder"),
        ("rows", "rows/answers", "the output lies in the input"),
        ("twice", "out", r"x\.csv would hold the answers to two files"),
        ("rows/a.csv", "s3://rows/a.csv?region=x", "an output has no options"),
    ],
)
def test_what_cannot_be_used_is_named(folder: Path, tmp_path: Path, source: str, out: str, message: str) -> None:
    for name in ("empty", "folder.csv", "twice"):
        (tmp_path / name).mkdir()
    for name in ("file", "twice/x.csv", "twice/x.csv.gz"):
        (tmp_path / name).touch()
    with pytest.raises(KcmError, match=message):
        predicted_files(*(where if "://" in where else f"{tmp_path / where}" for where in (source, out)))


def test_an_interrupted_write_leaves_the_old_file_and_no_draft(folder: Path, tmp_path: Path) -> None:
    (part,) = predicted_files(folder / "a.csv", tmp_path / "out.csv")
    part.target.write_text("old")
    with suppress(RuntimeError), part.drafted(part.hidden) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert part.target.read_text() == "old"
    assert not list(part.hidden.iterdir())


ANSWERS = pa.schema([("label", pa.string()), ("confidence", pa.float64())])
RECORDS = [
    {"text": 'plain "quoted", with\nlines', "n": 1, "nested": {"deep": [1, 2]}},
    {"text": "ärger", "n": None, "nested": {"deep": []}},
    {"text": "third", "n": 3, "nested": None},
]


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
WRITE: dict[str, Callable[[Path], object]] = {
    ".csv": lambda path: path.write_text(csv_text([row | {"nested": json.dumps(row["nested"])} for row in RECORDS])),
    ".jsonl": lambda path: path.write_text(json_lines(RECORDS)),
    ".parquet": lambda path: pq.write_table(pa.Table.from_pylist(RECORDS), path),
}


@pytest.mark.parametrize("source", WRITE)
@pytest.mark.parametrize("target", READ)
def test_every_format_converts_with_rows_and_columns_kept(tmp_path: Path, source: str, target: str) -> None:
    """Promise: every format becomes every other with rows in order and columns kept."""
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
