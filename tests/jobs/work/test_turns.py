"""The loop's commands say what became of a turn in a line, and what became of all versions in a table."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.work import turns
from jobs.work.turns import versions
from kcm.config import load_config
from kcm.errors import ConfigError, DataError
from pipelines.config import RunConfig
from pipelines.loop.attempts import UpdateAttempt
from pipelines.loop.state import LoopState
from pipelines.loop.triggers import NewTraffic
from pipelines.serve.log.database import LogUnavailableError
from pipelines.store.files import StorageError
from tests.jobs.conftest import registered

CONFIG = Path(__file__).parents[3] / "jobs/configs/reviews.yaml"
UPDATED = ["train.mask_unseen=true", "serve.feedback.store_payloads=text", "update={}"]
TURN: dict[str, Any] = {
    "version": "reviews/3",
    "digest": "three",
    "after": 10,
    "upto": 500,
    "promoted": False,
    "awaits_approval": False,
    "verdict": "fail",
    "reason": "tweets loses more than 1 points",
    "gates": {"old_tasks": {"verdict": "fail", "reason": "tweets loses more than 1 points"}},
    "certificate": {"valid": True, "bound": 0.018, "window": [10, 500]},
    "calls_saved_before": 0.3,
    "calls_saved_after": 0.45,
    "labels": 12,
    "seconds": 61.0,
}


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    """A run with two champions behind it, and a challenger that failed."""
    made = registered(tmp_path)
    state = LoopState.of(made)
    champion = state.champions.present().champion
    attempt = UpdateAttempt(champion=champion.digest, after=10, upto=500, configuration="c")
    state.attempts.close(attempt.name, TURN | {"champion_digest": champion.digest})
    return made


def test_versions_list_state_lineage_and_reasons(config: RunConfig) -> None:
    """Promise: versions are listed with their state lineage and reasons."""
    found = {each["version"]: each for each in versions(config)["versions"]}
    assert list(found) == ["reviews/3", "reviews/2", "reviews/1"]
    assert [each["state"] for each in found.values()] == ["challenger", "champion", "former champion"]
    assert found["reviews/3"]["parent"] == "reviews/2"
    assert found["reviews/3"]["window"] == [10, 500]
    assert found["reviews/3"]["reason"] == "tweets loses more than 1 points"


def kcm(*words: str) -> Any:
    return CliRunner().invoke(app, words)


def test_an_update_ends_with_its_table_and_the_path_of_loop_json(monkeypatch: pytest.MonkeyPatch) -> None:
    result = TURN | {"changed": True, "result_path": "/somewhere/loop.json"}
    monkeypatch.setattr(turns, "update", lambda config, labels: result)
    shown = kcm("update", str(CONFIG))
    assert shown.exit_code == 0
    assert "old tasks" in shown.stdout
    assert "30.0% before, 45.0% after" in shown.stdout
    assert shown.stdout.splitlines()[-1] == "/somewhere/loop.json"
    monkeypatch.setattr(turns, "update", lambda config, labels: result | {"version": None, "reason": "too few rows"})
    assert "nothing is promoted: too few rows" in kcm("update", str(CONFIG)).stdout


def test_versions_and_rollback_are_commands(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "require_servable", lambda *_: None)
    storage = f"storage_path={config.storage_path}"
    assert "former champion" in kcm("versions", str(CONFIG), "--set", storage).stdout
    shown = kcm("rollback", str(CONFIG), "--set", storage, "--reason", "complaints")
    assert shown.stdout.startswith("reviews/2 is rolled back: reviews/1 is the champion again")
    assert "complaints" in kcm("versions", str(CONFIG), "--set", storage).stdout


def test_a_watch_survives_refused_windows_and_outages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = load_config(RunConfig, CONFIG, [f"storage_path={tmp_path}", *UPDATED])
    lines: list[str] = []
    faults = [DataError("nothing was audited"), LogUnavailableError("the log fails")]
    results: list[Any] = [*faults, TURN | {"changed": True}]
    looks: list[Any] = [
        StorageError("no route"),
        *(NewTraffic(True, (each,)) for each in "abc"),
        ConfigError("no section"),
    ]

    def taken(queue: list[Any]) -> Any:
        if isinstance(result := queue.pop(0), Exception):
            raise result
        return result

    monkeypatch.setattr(turns, "update", lambda _: taken(results))
    monkeypatch.setattr(NewTraffic, "of", lambda _: taken(looks))
    monkeypatch.setattr(turns.time, "sleep", lambda _: None)
    with pytest.raises(ConfigError, match="no section"):
        turns.watch(config, lines.append)
    starts = [f"starting an attempt: {each}" for each in "ab"]
    assert lines[:5] == ["no route", starts[0], "nothing was audited", starts[1], "the log fails"]
    assert lines[6].startswith("reviews/3 is not promoted")


def test_watch_needs_a_section_for_updates(tmp_path: Path) -> None:
    config = load_config(RunConfig, CONFIG, [f"storage_path={tmp_path}"])
    with pytest.raises(ConfigError, match="has no section `update`"):
        turns.watch(config, pytest.fail)
