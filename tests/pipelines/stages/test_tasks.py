"""Rows are written once for all nodes, and a run that could keep nothing can be ended before anything is paid."""

import csv
import io
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from kcm.certification.certificate import CertificateConfig
from kcm.certification.ledger import Ledger
from kcm.certification.sample_size import Scope
from kcm.config import parse_config
from kcm.tasks import TasksConfig
from kcm.tasks.preparation.build import write_sequence
from kcm.tasks.rows import SourceRow, rows_of
from kcm.tasks.sequence import BAD_ROWS, Summary
from kcm.tasks.sources import Source, TableShard
from kcm.tasks.splits import DEFAULT_FRACTIONS
from pipelines.progress import Reporter
from pipelines.stages.overview import overview
from pipelines.stages.tasks import StoredFolder, Tasks
from pipelines.store.storage import Storage
from tests.pipelines.runs import run_of


def build(folder: Path, num_rows: int, reporter: Reporter) -> None:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"text {number}", "ab"[number % 2]] for number in range(num_rows))
    config, context = run_of(folder, folder / "rows.csv", reporter)
    Tasks.of(config).build({}, context)


def test_run_that_can_certify_nothing_is_warned_about(tmp_path: Path) -> None:
    output = io.StringIO()
    build(tmp_path, 100, Reporter(Console(file=output)))
    assert "everything would go to the large model" in output.getvalue()


def test_rows_that_were_looked_at_need_more_units_before_anything_is_paid(tmp_path: Path) -> None:
    """Promise: a later look may use less of delta, and the run says so before the large model is asked."""
    output = io.StringIO()
    reporter = Reporter(Console(file=output, width=300))
    build(tmp_path, 720, reporter)
    assert "the ledger has" not in output.getvalue()
    ledger = Ledger(run_of(tmp_path, tmp_path / "rows.csv", reporter)[1].store.ledger)
    for number in range(2):
        ledger.look({}, delta=0.1, digest=str(number), purpose="test")  # without units, it is a look at every table
    build(tmp_path, 720, reporter)
    said = output.getvalue().splitlines()
    assert said[-1] == (
        "warning: the ledger has 2 looks at these rows. A run with other settings may use 3.04% of delta, so it needs"
        " at least 287 units: everything would go to the large model. Add new rows"
    )


def test_the_time_of_tasks_is_that_of_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def slowly(*given: Any, **more: Any) -> str:
        time.sleep(0.3)
        return write_sequence(*given, **more)

    monkeypatch.setattr("pipelines.stages.tasks.write_sequence", slowly)
    output = io.StringIO()
    build(tmp_path, 1200, Reporter(Console(file=output)))
    said = re.search(r"tasks +done in ([\d.]+) s", output.getvalue())
    assert said is not None
    assert float(said[1]) >= 0.3


def test_no_step_needs_the_disk_of_another_node(node_bucket: str, tmp_path: Path) -> None:
    """Promise: on a bucket any node does any step: what was written elsewhere comes from the bucket."""
    storage = Storage.at(node_bucket)
    folder = StoredFolder(storage.root / "runs" / "one" / "sequence", storage)

    def by_new_nodes(function: Callable[[Any], Any], items: Sequence[Any], num_rows: int) -> Iterator[Any]:
        for item in items:
            yield function(item)
            for file in {*folder.path.iterdir()} - {folder.path / BAD_ROWS}:
                file.unlink()

    rows = [SourceRow(f"r{i}", f"text {i}", f"label-{i % 4}", group=f"g{i // 5}") for i in range(900)]
    source = Source("rows", tuple(TableShard(str(number), rows_of(rows[number::3])) for number in range(3)))
    config = parse_config(TasksConfig, {"scenario": "class_incremental", "num_tasks": 2})
    digest = write_sequence(config, folder, source, 0, workers=by_new_nodes)
    assert digest == write_sequence(config, tmp_path / "here", source, 0)
    assert sorted(storage.names(folder.path)) == ["task-0000.parquet", "task-0001.parquet"]
    for name in storage.names(folder.path):
        assert storage.fetch(folder.path / name).read_bytes() == (tmp_path / "here" / name).read_bytes()


def lines(units: dict[str, int], scopes: tuple[Scope, ...] = ("global", "per_task"), **certificate: Any) -> list[str]:
    rows = {
        task: {"train": 5 * count, "validate": count, "certify": count, "test": count} for task, count in units.items()
    }
    summary = Summary({"billing": 50, "billling": 2}, rows, units, 3, 7)
    return list(overview(summary, CertificateConfig(**certificate), scopes, DEFAULT_FRACTIONS))


def test_rows_labels_and_slips_are_told() -> None:
    first, task, bad, overlapping, slip, _ = lines({"bank": 200})
    assert first == "1,600 rows, 2 labels: billing 50, billling 2"
    assert task == "  task bank: train 1,000, validate 200, certify 200, test 200"
    assert bad.startswith("3 bad rows skipped")
    assert overlapping.startswith("7 rows skipped because another split has their content or group")
    assert slip == "warning: two labels have almost the same spelling: 'billing' (50) and 'billling' (2)"


def test_rows_that_are_enough_are_said_to_be() -> None:
    assert lines({"bank": 300})[-1] == "300 units to certify on; a loss of at most 2 points needs at least 126"
    assert lines({"bank": 200})[-1].endswith("at least 126. That is tight: 252 would be comfortable")
    assert "enough for one threshold over all tasks, not for one per task" in lines({"a": 90, "b": 90})[-1]


def test_epsilon_zero_says_that_rows_must_be_won() -> None:
    """Rows that lose nothing are not enough: the small model has to be right where the large one is wrong."""
    last = lines({"bank": 300}, epsilon=0.0)[-1]
    assert last.endswith("to be no worse needs at least 4 that only the small model answers right")


@pytest.mark.parametrize(
    ("units", "scopes", "advice"),
    [
        (
            {"bank": 98},
            ("global",),
            "98 units to certify on; a loss of at most 2 points needs at least 126,"
            " so everything would go to the large model. Use about 1,050 rows, or epsilon >= 0.03,"
            " or a certify share of 0.19 in place of 0.15",
        ),
        (
            {"a": 60, "b": 60},
            ("per_task",),
            "60 units to certify on in the smallest task; a loss of at most 2 points needs at least 180,"
            " so everything would go to the large model. Use about 2,900 rows, or epsilon >= 0.06,"
            " or tune.scopes [global]",
        ),
        ({"bank": 0}, ("global",), "no rows to certify on; a loss of at most 2 points needs at least 126"),
    ],
)
def test_too_few_rows_list_the_choices_that_work(units: dict[str, int], scopes: tuple[Scope, ...], advice: str) -> None:
    """Promise: rows that are too few come with the choices that would work."""
    assert lines(units, scopes)[-1].startswith(f"warning: {advice}")
