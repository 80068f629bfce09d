"""`kcm plan` takes what work takes from the run, or as it is given; what was never measured has to be given."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from kcm.parquet import write_table
from pipelines.loop.parent import Parent
from pipelines.loop.state import LoopState

CONFIG = """
name: run
tasks: {source: {kind: files, path: rows.csv}}
encoder: {kind: precomputed, columns: ["f_*"]}
large: {adapter: classifier, encoder: {kind: precomputed, columns: ["f_*"]}}
"""
SECONDS_OF_ROWS = [0.01, 0.012, 0.5]  # the median counts: the first row pays for what is loaded


def planned(tmp_path: Path, *options: str) -> tuple[Any, dict[str, Any]]:
    config = tmp_path / "run.yaml"
    config.write_text(CONFIG)
    result = CliRunner().invoke(app, ["plan", str(config), *options, "--json", str(tmp_path / "plan.json")])
    return result, json.loads((tmp_path / "plan.json").read_text())


def recorded(file: Path, **columns: list[float]) -> SimpleNamespace:
    """An artefact of one shard."""
    write_table(pa.table(columns), file)
    return SimpleNamespace(shards=lambda number: [file], readable=lambda name: file, usage={})


@pytest.fixture(autouse=True)
def champion(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    parent = SimpleNamespace(
        features=recorded(tmp_path / "features", seconds=SECONDS_OF_ROWS),
        outcomes=recorded(tmp_path / "outcomes", large_cost=[0.09]),
        bundle=SimpleNamespace(metrics={"overall": {"call_rate": 0.25}}),
    )
    state = SimpleNamespace(store=None, champions=SimpleNamespace(present=lambda: SimpleNamespace(champion=None)))
    monkeypatch.setattr(LoopState, "of", lambda config: state)
    monkeypatch.setattr(Parent, "of", lambda store, champion: parent)
    return parent


def test_what_work_takes_is_what_it_took_in_the_run(tmp_path: Path) -> None:
    result, found = planned(tmp_path, "--rps", "50")
    assert result.exit_code == 0
    assert "the large model alone" in result.stdout
    assert (found["small_ms"], found["large_ms"], found["call_rate"]) == (12, 90, 0.25)
    assert found["plans"]["the cascade"]["calls_per_hour"] == 45_000
    costs = found["costs_per_hour"]
    assert costs["the cascade"] < costs["the large model alone"]


def test_what_is_given_counts_and_calls_have_their_price(tmp_path: Path) -> None:
    free = planned(tmp_path, "--large-ms", "40", "--call-rate", "0.5")[1]
    paid = planned(tmp_path, "--large-ms", "40", "--call-rate", "0.5", "--set", "costs.large={per_call: 0.01}")[1]
    assert (paid["large_ms"], paid["call_rate"]) == (40, 0.5)
    added = paid["costs_per_hour"]["the cascade"] - free["costs_per_hour"]["the cascade"]
    assert added == pytest.approx(0.01 * 3600 * 100 * 0.5)


def test_recorded_answers_took_nobody_knows_how_long(tmp_path: Path, champion: SimpleNamespace) -> None:
    champion.outcomes = recorded(tmp_path / "outcomes", large_cost=[0.0])
    result, found = planned(tmp_path)
    assert result.exit_code != 0
    assert "--large-ms" in json.dumps(found)
