"""Before anything is paid, whoever runs the pipeline can end a run that could keep nothing."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from rich.console import Console

from kcm.config import parse_config
from pipelines.config import RunConfig
from pipelines.context import Context
from pipelines.progress import Reporter
from pipelines.stages.tasks import Tasks
from pipelines.store.artefact import ArtefactStore


class Refused(Exception):
    """Raised in place of a person's no."""


def refuse() -> None:
    raise Refused


def build(folder: Path, num_rows: int, reporter: Reporter) -> None:
    with (folder / "rows.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows([f"text {number}", "ab"[number % 2]] for number in range(num_rows))
    values = {
        "name": "few",
        "storage_path": str(folder / "storage"),
        "tasks": {
            "source": {"kind": "files", "path": str(folder / "rows.csv")},
            "scenario": "class_incremental",
            "num_tasks": 1,
        },
        "encoder": {"model": "any"},
        "large": {"adapter": "classifier"},
    }
    config = parse_config(RunConfig, values)
    context = Context(config.name, ArtefactStore(config.storage_path), folder, reporter=reporter)
    context.run_folder.mkdir(parents=True)
    Tasks.of(config).build({}, context)


def test_a_run_in_vain_is_asked_about_once_its_warning_was_said(tmp_path: Path) -> None:
    output = io.StringIO()
    with pytest.raises(Refused):
        build(tmp_path, 100, Reporter(Console(file=output), in_vain=refuse))
    assert "everything would be escalated" in output.getvalue()


def test_a_run_that_can_certify_is_not_asked_about(tmp_path: Path) -> None:
    build(tmp_path, 1200, Reporter(Console(file=io.StringIO()), in_vain=refuse))


def test_without_somebody_to_ask_the_run_goes_on(tmp_path: Path) -> None:
    build(tmp_path, 100, Reporter(Console(file=io.StringIO())))
