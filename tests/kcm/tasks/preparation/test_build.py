"""From a file to a task sequence, with every fault of the data found on the way."""

import csv
import io
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from benchmarks.sequences import TaskSequence, read_rows
from kcm.config import parse_config
from kcm.errors import ConfigError, DataError
from kcm.inputs.content import IMAGE, TEXT, Part
from kcm.inputs.labels import OUT_OF_SCOPE
from kcm.tasks import SPLITS, TasksConfig
from kcm.tasks.preparation import database, facts
from kcm.tasks.preparation.build import in_process, write_sequence
from kcm.tasks.rows import SourceRow, read_bad_rows, rows_of
from kcm.tasks.sequence import BAD_ROWS, UNITS
from kcm.tasks.sources import Source, TableShard
from kcm.tasks.units import content_names, group_names


def ids(sequence: TaskSequence, split: str) -> set[str]:
    return {row for task in sequence.tasks for row in task.splits[split]["id"].to_pylist()}


def test_every_row_is_in_one_split_of_one_task(write_csv, build, labelled):
    sequence = build(write_csv(labelled(400, 8)), num_tasks=4)
    rows = [row for task in range(4) for row in sequence.tasks[task].rows.to_pylist()]
    assert sorted(row["id"] for row in rows) == sorted(f"data-{i + 1}" for i in range(400))
    for row in rows:
        number = int(row["id"].removeprefix("data-")) - 1
        assert (row["text"], sequence.label_names[row["label"]]) == (f"sentence number {number}", f"class-{number % 8}")
    for number, task in enumerate(sequence.tasks):
        assert {sequence.label_names[label] for label in sequence.tasks[number].rows["label"].to_pylist()} == set(
            task.label_names
        )


def test_long_tail_is_cut_only_from_train_and_recorded(write_csv, build, labelled):
    path = write_csv(labelled(800, 4))
    whole = build(path)
    sequence = build(path, long_tail={"imbalance_factor": 8})
    assert sorted(sequence.long_tail) == ["class-0", "class-1", "class-2", "class-3"]
    head, *tail = map(sequence.label_names.index, sequence.long_tail)
    assert all(ids(sequence, split) == ids(whole, split) for split in ("validate", "certify", "test"))

    def counts(sequence):
        return Counter(label for task in sequence.tasks for label in task.splits["train"]["label"].to_pylist())

    largest = max(counts(whole).values())
    # the formula by hand: factor 8 over 3 steps halves from class to class
    assert [counts(sequence)[label] for label in tail] == [round(largest / 2), round(largest / 4), round(largest / 8)]
    assert counts(sequence)[head] == counts(whole)[head]
    small = build(path, long_tail={"imbalance_factor": 8, "n_max": 40})
    assert [counts(small)[label] for label in (head, *tail)] == [40, 20, 10, 5]


@pytest.fixture
def clinc(write_csv):
    """A table like CLINC150: four intents and out-of-scope rows."""
    rows = [
        (f"{label} {split} {i}", f"{split} {label} {i}", label, split)
        for split in ("train", "val", "test")
        for label, count in ((*dict.fromkeys("abcd", 20).items(), ("oos", 12)))
        for i in range(count)
    ]
    return write_csv(rows, ("id", "text", "label", "split"))


OUTSIDE = {"id_column": "id", "out_of_scope_label": "oos"}


def test_out_of_scope_rows_are_dropped_unless_wanted(clinc, build):
    sequence = build(clinc, source=OUTSIDE)
    assert sequence.label_names == ("a", "b", "c", "d")
    assert not any("oos" in row for split in SPLITS for row in ids(sequence, split))
    assert not sequence.bad_rows


def test_out_of_scope_rows_have_no_label_and_do_not_train(clinc, build):
    sequence = build(clinc, source=OUTSIDE, out_of_scope="keep")
    assert sequence.label_names == ("a", "b", "c", "d")
    outside = {
        row["id"]: row["label"]
        for task in range(2)
        for row in sequence.tasks[task].rows.to_pylist()
        if "oos" in row["id"]
    }
    assert set(outside.values()) == {OUT_OF_SCOPE}
    assert len(outside) == 24
    assert not any("oos" in row for row in ids(sequence, "train"))
    assert all(OUT_OF_SCOPE in task.splits["test"]["label"].to_pylist() for task in sequence.tasks)
    assert (sequence.label_names, sequence.none_label) == (("a", "b", "c", "d"), "oos")


def test_too_many_bad_rows_fail_the_run_and_are_listed(write_csv, build, labelled, tmp_path):
    path = write_csv([*labelled(100, 4), ("", "class-0"), ("no label", "")])
    sequence = build(path, max_bad_rows=2)
    assert [bad.id for bad in sequence.bad_rows] == ["data-101", "data-102"]
    with pytest.raises(DataError, match=r"2 of 102 rows are bad.*data-101: empty text.*bad_rows\.csv"):
        build(path, max_bad_rows=1)
    with (tmp_path / "bad_rows.csv").open() as stream:
        assert list(csv.reader(stream)) == [
            ["id", "reason", "file", "row"],
            ["data-101", "empty text", str(path), "101"],
            ["data-102", "missing label", str(path), "102"],
        ]


def test_a_bad_row_is_named_by_its_file_and_its_number_in_it(build, labelled, tmp_path):
    """Promise: one of seven thousand files is found."""
    folder = tmp_path / "rows"
    folder.mkdir()
    for number in range(3):
        rows = [(f"{number}-{i}" if (number, i) != (1, 70) else None, *row) for i, row in enumerate(labelled(90, 3))]
        table = pa.table({name: [row[at] for row in rows] for at, name in enumerate(("id", "text", "label"))})
        table = table.set_column(1, "text", pa.array([f"{number} {text}" for text in table["text"].to_pylist()]))
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=30)
    (bad,) = build(folder, source={"id_column": "id"}, max_bad_rows=1).bad_rows
    assert (bad.id, bad.file.endswith("part-1.parquet"), bad.row) == ("", True, 71)
    with pytest.raises(DataError, match=r"row 71 of .*part-1\.parquet: missing id"):
        build(folder, source={"id_column": "id"}, max_bad_rows=0)


@pytest.mark.parametrize("limit", [-1, 0.01, "1", "some", True, None])
def test_a_limit_of_bad_rows_is_a_count_or_a_share(limit):
    with pytest.raises(ConfigError, match="max_bad_rows"):
        parse_config(TasksConfig, {"max_bad_rows": limit})


@pytest.mark.parametrize(
    ("test_labels", "message"),
    [((), "has no test rows"), (("class-0",), "all test rows of task 'task-1' are of one class, 'class-0'")],
)
def test_task_without_test_rows_or_classes_is_refused(test_labels, message, write_csv, build):
    rows = [(f"{split} {i}", f"class-{i % 2}", split) for split in ("train", "val") for i in range(40)]
    rows += [(f"test {label} {i}", label, "test") for label in test_labels for i in range(10)]
    rows += [(f"test other {i}", f"class-{2 + i % 2}", "test") for i in range(10)]
    rows += [(f"{split} other {i}", f"class-{2 + i % 2}", split) for split in ("train", "val") for i in range(40)]
    with pytest.raises(DataError, match=message):
        build(write_csv(rows, ("text", "label", "split")))


def test_tasks_have_test_rows_all_or_none_where_none_are_wanted(write_csv, build):
    fractions = {"train": 0.6, "validate": 0.0, "certify": 0.4, "test": 0.0}
    rows = [(f"text {i}", f"class-{i % 4}", "train") for i in range(160)]
    built = build(write_csv(rows, ("text", "label", "split")), fractions=fractions)
    assert all(set(task.rows["split"].to_pylist()) == {"train", "certify"} for task in built.tasks)
    measured = [(f"test {i}", f"class-{i % 2}", "test") for i in range(10)]
    with pytest.raises(DataError, match="has no test rows"):
        build(write_csv([*rows, *measured], ("text", "label", "split")), fractions=fractions)


def some_rows(count: int = 1200) -> pa.Table:
    """Rows of every kind: documents, texts that repeat, ids that repeat, out-of-scope and unlabelled rows, bad ones."""
    draw = np.random.default_rng(0)
    records = []
    for i in range(count):
        text = f"Größe {draw.integers(3 * count // 4)}\u2003naïve ✓" if i % 7 else f"  Plain TEXT {i % 91} "
        label = "" if i % 13 == 0 else "none" if i % 17 == 0 else f"label-{i % 4}"
        group = f"document {i // 3}" if i % 2 else ""
        records.append(
            SourceRow(f"r{i % (count - 5)}", "" if i % 301 == 0 else text, label, group, task="xy"[i % 8 > 3])
        )
    return rows_of(records)


CONFIG = {
    "max_rows_per_task": 400,
    "max_bad_rows": "5%",
    "long_tail": {"imbalance_factor": 2},
    "unlabelled": "keep",
    "out_of_scope": "keep",
}


def written(folder: Path, rows: Sequence[pa.Table], workers: Any = in_process) -> tuple[str, dict[str, Any]]:
    """The digest and the files of the sequence of some shards; of bad rows, id and reason, since shards number them."""
    source = Source("rows", tuple(TableShard("rows", table) for table in rows), (), "none")
    digest = write_sequence(parse_config(TasksConfig, CONFIG), folder, source, 3, workers=workers)
    bad_rows = [(row.id, row.reason) for row in read_bad_rows(folder / BAD_ROWS)]
    return digest, {file.name: file.read_bytes() for file in folder.iterdir()} | {BAD_ROWS: bad_rows}


def last_first(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterable[Any]:
    """Workers that begin at the other end."""
    return [function(item) for item in items[::-1]][::-1]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    return written(tmp_path_factory.mktemp("whole") / "sequence", [some_rows()])


@pytest.mark.parametrize("block_rows", [1, 7, 100])
def test_neither_blocks_nor_shards_of_the_source_change_a_byte(
    block_rows: int, whole: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(facts, "SHARD_ROWS", block_rows * 10)
    rows = some_rows()
    bounds = [0, 10, 10, 500, 1200]
    tables = [rows.slice(start, stop - start) for start, stop in pairwise(bounds)]
    assert written(tmp_path / "parts", tables, last_first) == whole


def test_neither_threads_nor_memory_change_a_byte(
    whole: tuple[str, dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "MEMORY_LIMIT", "20MB")
    assert written(tmp_path / "spilled", [some_rows()]) == whole


@pytest.mark.parametrize("reads", [TEXT, IMAGE, TEXT | IMAGE])
def test_a_row_keeps_what_is_read_of_it(reads: frozenset[Part], tmp_path: Path) -> None:
    rows = [SourceRow(str(i), f"text {i}", "ab"[i % 2], image=picture(i)) for i in range(100)]
    config = parse_config(TasksConfig, {"num_tasks": 1, "scenario": "class_incremental"})
    write_sequence(config, tmp_path / "sequence", Source.of_records("rows", rows), 0, reads=reads)
    for row in read_rows(tmp_path / "sequence", 0).to_pylist():
        given = rows[int(row["id"])]
        assert (row["text"], row["image"]) == (
            given.text if "text" in reads else "",
            given.image if "image" in reads else b"",
        )


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (2, 2), shade).save(file, "PNG")
    return file.getvalue()


def test_indistinguishable_out_of_scope_rows_are_refused(write_csv, build, labelled):
    with pytest.raises(ConfigError, match=r"out_of_scope = 'keep'.*Set source\.out_of_scope_label"):
        build(write_csv(labelled(80, 4)), out_of_scope="keep")


def test_another_row_is_another_digest(whole: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    rows = some_rows()
    assert written(tmp_path / "same", [rows])[0] == whole[0]
    used = read_rows(tmp_path / "same", 0)["id"][0].as_py()
    kept = pa.array([row_id != used for row_id in rows["id"].to_pylist()])
    assert written(tmp_path / "other", [rows.filter(kept)])[0] != whole[0]


def test_a_source_without_rows_is_refused(tmp_path: Path) -> None:
    for number, shards_ in enumerate(((), (TableShard("empty", some_rows().slice(0, 0)),))):
        with pytest.raises(DataError, match="there are no rows"):
            write_sequence(TasksConfig(), tmp_path / str(number), Source("rows", shards_), 0)


def test_the_units_are_those_of_the_whole_table(tmp_path: Path) -> None:
    """A cap, a seed or a salt keeps other rows, and the units that a ledger compares stay those of all usable rows."""
    made = [SourceRow(f"{n}", f"text {n % 500}", "ab"[n % 2], group=f"g{n % 70}" if n % 3 else "") for n in range(900)]
    units = []
    for number, (seed, more) in enumerate([(0, {}), (1, {"salt": 7}), (0, {"max_rows_per_task": 300})]):
        config = parse_config(TasksConfig, {"num_tasks": 1, "scenario": "class_incremental", **more})
        write_sequence(config, tmp_path / str(number), Source.of_records("rows", made), seed)
        rows = pq.read_table(tmp_path / str(number) / UNITS).to_pylist()
        units.append({kind: [row["digest"] for row in rows if row["kind"] == kind] for kind in ("content", "group")})
    assert units[0] == units[1] == units[2]
    texts = pa.table({"text": [f"text {n}" for n in range(500)]})
    assert units[0]["content"] == sorted(content_names(texts))
    assert units[0]["group"] == sorted(group_names(pa.array([f"g{n}" for n in range(70)])))
