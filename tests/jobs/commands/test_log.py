"""`kcm log`: what is in the log, the log as a file, and deletion from it."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from jobs.cli import app
from kcm.inputs.content import Content
from kcm.tasks.units import unit_digest
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.entries import Feedback, LoggedDecision, Origin, Payload
from pipelines.serve.log.window import WINDOW
from tests.conftest import ROOT

REVIEWS = ROOT / "jobs/configs/reviews.yaml"


def call(tmp_path: Path, command: str, *arguments: str) -> Result:
    options = ["--set", f"storage_path={tmp_path}", "--set", "serve.application=films"]
    return CliRunner().invoke(app, ["log", command, str(REVIEWS), *options, *arguments])


def result_of(tmp_path: Path, command: str, *arguments: str) -> dict[str, Any]:
    file = tmp_path / "result.json"
    done = call(tmp_path, command, *arguments, "--json", str(file))
    assert done.exit_code == 0, done.output
    return json.loads(file.read_text())


@pytest.fixture
def log(tmp_path: Path) -> DecisionLog:
    """Six decisions of two callers and two versions; the third of them never came."""
    log = DecisionLog(f"sqlite:///{tmp_path}/feedback.db", 30.0, "films")
    for number, caller in enumerate(["ann", "bob", "", "ann", "bob", "ann", "ann"]):
        if caller:
            route = "large" if number == 4 else "small"
            payload = Payload(f"text {number}")
            unit = unit_digest(Content(f"text {number}"))
            version = "films/1" if number < 3 else "films/2"
            origin = Origin(f"r{number}", caller)
            log.add_decisions(
                [
                    LoggedDecision(
                        *(origin, 0, version, route, 0.5, number % 2 == 1, "bad", 0.5),
                        unit=unit,
                        large_identity="large",
                        payload=payload,
                        sequence=number + 1,
                    )
                ]
            )
    log.finish_audits("r1", {0: "good"})
    log.finish_audits("r3", {0: None})
    log.add_feedback("r1", "bob", [Feedback(0, "good")])
    return log


def test_stats_count_what_is_there_and_what_is_missing(tmp_path: Path, log: DecisionLog) -> None:
    log.put_novelty("films/2", 31.25)
    found = result_of(tmp_path, "stats")
    assert (found["decisions"], found["missing"], found["watermark"]) == (6, 1, 6)
    assert found["novelty"] == {"films/1": 1.0, "films/2": 31.25}
    assert found["versions"] == {"films/1": {"small": 2}, "films/2": {"small": 3, "large": 1}}
    assert found["audits"] == {"answered": 1, "drawn": 1, "lost": 1}
    assert (found["labels"], found["forgotten"]) == (1, 0)
    assert (found["payloads"]["items"], found["payloads"]["bytes"]) == (6, 36)
    assert found["oldest"] <= found["payloads"]["oldest"] <= found["newest"]
    shown = call(tmp_path, "stats").output
    assert "films/2" in shown
    assert "1 decisions never came into the log" in shown


def test_the_log_is_written_as_parquet(tmp_path: Path, log: DecisionLog) -> None:
    file = tmp_path / "out" / "log.parquet"
    assert result_of(tmp_path, "export", "--output", str(file))["decisions"] == 6
    table = pq.read_table(file)
    assert table.schema.equals(WINDOW)
    assert table["text"].to_pylist() == [f"text {number}" for number in (0, 1, 3, 4, 5, 6)]
    part = result_of(tmp_path, "export", "--output", str(file), "--after", "2", "--upto", "4")
    assert (part["decisions"], pq.read_table(file)["number"].to_pylist()) == (2, [3, 4])
    assert [each.name for each in file.parent.iterdir()] == ["log.parquet"]


def test_a_caller_and_a_request_are_forgotten(tmp_path: Path, log: DecisionLog) -> None:
    by_caller = result_of(tmp_path, "forget", "--caller", "ann")
    assert (by_caller["items"], len(by_caller["units"])) == (4, 4)
    assert result_of(tmp_path, "forget", "--request", "r1/0")["items"] == 1
    assert result_of(tmp_path, "forget", "--request", "r4")["items"] == 1
    found = result_of(tmp_path, "stats")
    assert (found["decisions"], found["forgotten"], found["labels"]) == (6, 6, 0)
    assert found["payloads"] == {"items": 0, "bytes": 0, "oldest": None}


@pytest.mark.parametrize("arguments", [["--caller", "eve"], ["--request", "r1/7"], ["--request", "nonsense"]])
def test_what_is_not_there_cannot_be_forgotten_and_it_is_said(
    tmp_path: Path, log: DecisionLog, arguments: list[str]
) -> None:
    """Promise: a name that is misspelt is not acknowledged as forgotten."""
    done = call(tmp_path, "forget", *arguments)
    assert done.exit_code == 2
    assert "the log has no items of" in done.output


@pytest.mark.parametrize("command", ["stats", "export --output x.parquet", "forget --caller ann"])
def test_a_log_that_is_not_there_is_not_made(tmp_path: Path, command: str) -> None:
    done = call(tmp_path, *command.split())
    assert done.exit_code == 2
    assert "nothing has been served yet" in done.output
    assert list(tmp_path.iterdir()) == []
