"""The search on Ray Tune finds what one process finds, and trains nothing twice, whenever its driver dies."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from kcm.config import parse_config
from pipelines.batch.mapping import run_remotely
from pipelines.config import RunConfig
from pipelines.run import run
from pipelines.store.artefact import ArtefactStore
from pipelines.training.artefacts import TunedArtefact
from tests.integration.pipeline.test_precomputed import rows, values_of

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

NUM_TRIALS = 10
# One trial at a time, each trained for a second or more: the driver dies long before the last, on any machine.
LONG: dict[str, Any] = {
    "learner": {"name": "replay", "memory": 20},
    "network": {"hidden": []},
    "train": {"num_epochs": 150},
    "tune": {
        "num_trials": NUM_TRIALS,
        "gates": ["confidence"],
        "large_weights": [1.0],
        "learning_rates": [0.001 * step for step in range(1, 41)],
    },
}


def states(storage: Path) -> dict[str, int]:
    """When each state of a running search was trained, by its name."""
    return {path.stem: path.stat().st_mtime_ns for path in storage.glob("artefacts/tune/*/scratch/kcm-*.pt")}


def test_a_cluster_and_one_process_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: Ray Tune runs the points that one process would try, and every trial reaches the same."""
    quick = LONG | {"train": {"num_epochs": 2}, "tune": {"num_trials": 3, "learning_rates": [0.001, 0.01]}}
    found = []
    for place in ("cluster", "process"):
        (folder := tmp_path / place).mkdir()
        config = parse_config(RunConfig, values_of(rows(), folder) | quick)
        run(config, until="tune")
        (tuned,) = ArtefactStore(config.storage_path).finished("tune")
        found.append(tuned.as_a(TunedArtefact).trials)
        monkeypatch.setattr("pipelines.stages.tune.is_connected", lambda: False)  # the next
    assert len(found[0]) == 3
    assert found[0] == found[1]


@pytest.mark.slow
def test_a_killed_search_trains_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise: what was trained is not trained again, even where the driver had no time to say goodbye."""
    values = values_of(rows(), tmp_path) | LONG
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(values))
    config = parse_config(RunConfig, values)
    command = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path / "run.yaml")]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(command, env=environment, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 600
        while len(states(config.storage_path)) < 3:
            assert driver.poll() is None, "the run ended before its search got so far"
            assert time.monotonic() < deadline, "the search never got so far"
            time.sleep(0.05)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    before, after = states(config.storage_path), dict[str, int]()
    assert len(before) < NUM_TRIALS

    def look_first(function: Callable[..., Any], *arguments: Any) -> Any:
        """Look at the states just before the search becomes an artefact."""
        after.update(states(config.storage_path))
        return run_remotely(function, *arguments)

    monkeypatch.setattr("pipelines.stages.tune.run_remotely", look_first)
    run(config, until="tune")
    (tuned,) = ArtefactStore(config.storage_path).finished("tune")
    trials = [trial for trial in tuned.as_a(TunedArtefact).trials if trial["collaborator"] == "kcm"]
    assert len(trials) == NUM_TRIALS
    assert after.items() >= before.items()
    assert len(before) < len(after) <= NUM_TRIALS
