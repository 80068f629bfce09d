"""Promise: a command whose answers are outside the promise does not end as if all were well."""

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from jobs.cli import app
from kcm.large.response_cache import ResponseStore


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """What the command hands to the prediction, which is played."""
    given: dict[str, Any] = {"outside_promise": 0.25}

    def played(*words: Any, **options: Any) -> dict[str, Any]:
        given.update(options)
        return {"rows": 4, "void": "one of 4 rows", "outside_promise": given["outside_promise"]}

    monkeypatch.setattr("pipelines.batch.predict.predict", played)
    (tmp_path / "bundle").mkdir()
    (tmp_path / "in.csv").write_text("text\na\n")
    return given


def predicted(tmp_path: Path, *words: str) -> tuple[Result, dict[str, Any]]:
    arguments = ["bundle", "in.csv", "--output", "out.csv", "--json", "r.json"]
    paths = [word if word.startswith("--") else str(tmp_path / word) for word in arguments]
    result = CliRunner().invoke(app, ["predict", *paths, *words])
    return result, json.loads((tmp_path / "r.json").read_text())


def test_rows_outside_the_promise_end_with_code_3(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Promise: the result is written whole; --degraded-ok changes the exit code and nothing else."""
    bad, written = predicted(tmp_path)
    assert (bad.exit_code, written["outside_promise"], written["void"]) == (3, 0.25, "one of 4 rows")
    assert "25.0% of the rows are outside the promise" in bad.stderr
    good, same = predicted(tmp_path, "--degraded-ok")
    assert (good.exit_code, same) == (0, written)
    asked["outside_promise"] = 0.0
    assert predicted(tmp_path)[0].exit_code == 0


def test_the_failure_rule_and_the_store_can_be_set(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Promise: what becomes of failed rows, and where paid answers lie, are the caller's to choose."""
    predicted(tmp_path)
    assert (asked["on_large_failure"], asked["responses"]) == (None, None)
    predicted(tmp_path, "--on-large-failure", "error", "--store", str(tmp_path / "paid"))
    assert asked["on_large_failure"] == "error"
    assert asked["responses"] == ResponseStore.in_file(tmp_path / "paid" / "paid.sqlite")


def test_a_prediction_shares_the_runs_paid_answers(tmp_path: Path, asked: dict[str, Any]) -> None:
    """Promise: with CONFIG, answers that `kcm run` paid for are in the store that is used."""
    config = tmp_path / "run.yaml"
    config.write_text(f"storage_path: {tmp_path / 'storage'}\nserve: {{large: {{on_large_failure: error}}}}\n" + RUN)
    result, _ = predicted(tmp_path, "--config", str(config))
    assert asked.get("responses") == ResponseStore.in_file(tmp_path / "storage" / "paid.sqlite"), result.output
    assert asked["on_large_failure"] == "error"


RUN = """
name: mails
tasks: {source: {kind: files, path: rows.csv}}
encoder: {model: some/model}
large: {adapter: openai, model: gpt}
"""
