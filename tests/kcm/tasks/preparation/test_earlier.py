"""A table that is appended to a task sequence: what its rows may not repeat, and what the sequence becomes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from kcm.config import parse_config
from kcm.errors import DataError
from kcm.parquet import read_table
from kcm.tasks import TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.preparation.earlier import EarlierTasks, KnownRowsError
from kcm.tasks.rows import SourceRow, read_bad_rows
from kcm.tasks.sequence import BAD_ROWS, UNITS, read_description
from kcm.tasks.sources import Source

Rows = Callable[..., list[SourceRow]]


def rows(name: str, count: int, labels: str = "ab", **columns: Any) -> list[SourceRow]:
    return [SourceRow(f"{name}-{n}", f"{name} text {n}", labels[n % len(labels)], **columns) for n in range(count)]


def write(
    folder: Path, name: str, records: list[SourceRow], earlier: EarlierTasks | None = None, **config: Any
) -> Path:
    folder.mkdir()
    tasks = parse_config(TasksConfig, {"scenario": "task_incremental", "num_tasks": 1, "max_bad_rows": "5%"} | config)
    write_sequence(tasks, folder, Source.of_records(name, records), 0, earlier=earlier)
    return folder


def as_earlier(folder: Path) -> EarlierTasks:
    shards = sorted(folder.glob("task-*.parquet"))
    ids = [read_table(path, columns=["id"]) for path in shards]
    return EarlierTasks(read_description(folder), ids, [pq.read_table(folder / UNITS)], "first")


def test_appended_rows_are_a_task_of_their_own(tmp_path: Path) -> None:
    """Earlier labels keep their numbers, and the units file names the rows of the whole sequence for the ledger."""
    first = write(tmp_path / "first", "one", rows("one", 200, "bc"))
    second = write(tmp_path / "second", "two", rows("two", 200, "abc"), as_earlier(first))
    description = read_description(second)
    assert [task["name"] for task in description["tasks"]] == ["task-1", "two"]
    assert description["label_names"] == ["b", "c", "a"]
    assert description["summary"]["labels"] == {"b": 100 + 67, "c": 100 + 66, "a": 67}
    assert set(description["summary"]["certify_units"]) == {"task-1", "two"}
    assert sorted(path.name for path in second.glob("task-*")) == ["task-0001.parquet"]
    assert pq.read_table(second / UNITS).num_rows == 400


def test_known_contents_are_dropped_and_known_ids_are_bad_rows(tmp_path: Path) -> None:
    """A table that repeats the earlier one teaches its new rows alone; nothing trained on is measured."""
    known = rows("one", 200)
    first = write(tmp_path / "first", "one", known)
    clash = SourceRow("one-3", "another text under a known id", "a")
    second = write(tmp_path / "second", "two", [*known, *rows("two", 100), clash], as_earlier(first))
    table = read_table(second / "task-0001.parquet")
    assert sorted(table["id"].to_pylist()) == sorted(f"two-{n}" for n in range(100))
    reasons = [row.reason for row in read_bad_rows(second / BAD_ROWS)]
    assert reasons.count("its text or group is in an earlier task") == 200
    assert reasons.count("an earlier task has a row with this id") == 1
    with pytest.raises(KnownRowsError):
        write(tmp_path / "third", "three", known, as_earlier(second))


def test_given_splits_do_not_divide_a_group_between_tasks(tmp_path: Path) -> None:
    first = write(tmp_path / "first", "one", rows("one", 200))
    grouped = [SourceRow(f"g-{n}", f"grouped {n}", "ab"[n % 2], group="g" if n < 20 else "") for n in range(200)]
    drawn = write(tmp_path / "drawn", "two", grouped, as_earlier(first))
    later = [SourceRow("h", "of group g", "a", group="g"), *rows("later", 100)]
    assert (
        "h"
        in read_table(write(tmp_path / "kept", "three", later, as_earlier(drawn)) / "task-0002.parquet")[
            "id"
        ].to_pylist()
    )
    given = [SourceRow(row.id, row.text, row.label, group=row.group, split="train") for row in later]
    third = write(tmp_path / "dropped", "three", given, as_earlier(drawn))
    assert "h" not in read_table(third / "task-0002.parquet")["id"].to_pylist()


@pytest.mark.parametrize(
    ("scenario", "name", "labels", "message"),
    [
        ("class_incremental", "three", "bd", "class 'b' is in an earlier task"),
        ("task_incremental", "task-1", "cd", "already"),
    ],
)
def test_what_does_not_fit_the_sequence_is_refused(
    tmp_path: Path, scenario: str, name: str, labels: str, message: str
) -> None:
    first = write(tmp_path / "first", "one", rows("one", 200))
    second = write(tmp_path / "second", "two", rows("two", 200, "cd"), as_earlier(first), scenario=scenario)
    with pytest.raises(DataError, match=message):
        write(tmp_path / "third", name, rows("three", 200, labels), as_earlier(second), scenario=scenario)


def test_the_second_table_decides_how_a_single_one_goes_on(tmp_path: Path) -> None:
    """Promise: what `kcm init` writes for one table lets it go on with its classes, with others, or with both."""
    first = write(tmp_path / "first", "one", rows("one", 200))
    for scenario in ("class_incremental", "task_incremental"):
        second = write(tmp_path / scenario, "two", rows("two", 200, "bc"), as_earlier(first), scenario=scenario)
        write(tmp_path / f"{scenario} 3", "three", rows("three", 200, "ad"), as_earlier(second), scenario=scenario)
