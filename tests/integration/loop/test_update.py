"""The whole loop: traffic of a new domain is learned, certified and judged; a killed turn goes on."""

import asyncio
import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from benchmarks.simulation.local_service import local_service
from jobs.models import served_model
from jobs.work.turns import update, versions
from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.config import parse_config
from kcm.inputs.content import Content
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.run import run
from pipelines.serve.log.entries import Feedback
from tests.integration.loop.test_grown_sequence import SETTINGS, rows, texts_of
from tests.outside import write_modules

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

NUM_ROWS = 320
UPDATE = {"min_large_answers": 50, "gates": {"max_old_task_loss": 0.5, "max_cost": 9, "max_latency": 9}}
SERVE = {"audit": {"share": 0.5}, "feedback": {"store_payloads": "all"}}


@pytest.fixture(scope="module")
def config(cluster_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunConfig]:
    """A champion on two topics, and a log of a third, with labels for some of it."""
    write_modules(cluster_path)
    folder = tmp_path_factory.mktemp("loop")
    rows().to_csv(folder / "rows.csv", index=False)
    source = {"kind": "files", "path": str(folder / "rows.csv"), "task_column": "topic"}
    more = {
        "name": "loop",
        "tasks": {"source": source},
        "serve": SERVE,
        "update": UPDATE,
        "certificate": {"epsilon": 0.3},
    }
    where = {"storage_path": str(folder / "storage"), "assets_path": str(folder)}
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(cluster_path)
        config = parse_config(RunConfig, SETTINGS | more | where)
        run(config)
        asyncio.run(send_songs(config))
        yield config


async def send_songs(config: RunConfig) -> None:
    """Requests of 32 texts of a new topic, of which the first one's label is given."""
    labels = ["good" if number % 2 else "bad" for number in range(NUM_ROWS)]
    texts = texts_of(labels, seed=1)
    async with local_service(config) as service:
        for start in range(0, NUM_ROWS, 32):
            request_id = str(uuid.uuid4())
            await service.predict([Input(Content(text)) for text in texts[start : start + 32]], request_id)
            await service.feedback(request_id, None, [Feedback(0, labels[start])])


def start(config: RunConfig, folder: Path) -> subprocess.Popen[str]:
    """`kcm update` in a process of its own."""
    (folder / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json")))
    command = [sys.executable, "-m", "jobs.cli", "update", str(folder / "run.yaml")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def artefacts(config: RunConfig) -> set[str]:
    """Names of all that is finished."""
    return {str(path.parent) for path in config.storage_path.glob("artefacts/*/*/manifest.json")}


@pytest.mark.slow
def test_a_turn_that_is_killed_goes_on(config: RunConfig, tmp_path: Path) -> None:
    """Promise: SIGKILL while the networks learn costs what they had learned since their last checkpoint."""
    killed = start(config, tmp_path)
    try:
        deadline = time.monotonic() + 600
        while not list(config.storage_path.glob("artefacts/extend/*/scratch")):
            assert killed.poll() is None, killed.stdout and killed.stdout.read()
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        killed.send_signal(signal.SIGKILL)
        killed.wait()
    before = artefacts(config)
    result = update(config)
    assert before < artefacts(config)
    assert (result["after"], result["upto"]) == (0, NUM_ROWS)


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    return update(config)


def test_turn_registers_a_challenger_with_its_gates(config: RunConfig, result) -> None:
    """Promise: a turn ends with a registered challenger and its promotion gates."""
    turn = json.loads(Path(result["result_path"]).read_text())["turns"][-1]
    assert turn["version"] == "loop/2"
    gates = ["rows", "probe", "panel", "champion", "certificate", "old_tasks", "call_rate", "cost", "latency"]
    assert list(turn["gates"]) == gates
    assert turn["gates"]["probe"]["verdict"] == turn["gates"]["panel"]["verdict"] == "pass"
    assert set(turn["gates"]["old_tasks"]["figures"]["tasks"]) == {"films", "books"}
    assert turn["certificate"]["window"] == [0, NUM_ROWS]
    assert turn["labels"] == NUM_ROWS / 32
    state = LoopState.of(config)
    tags = MlflowClient(state.champions.uri).get_model_version("loop", "2").tags
    assert tags["kcm.parent"] == state.champions.pointer.history()[0].digest
    assert [each["version"] for each in versions(config)["versions"]] == ["loop/2", "loop/1"]


def test_challenger_has_one_more_task_and_names_its_parent(config: RunConfig, result) -> None:
    """Promise: the challenger knows one task more and whom it continues."""
    bundle = Bundle.read(served_model(config, "loop/2").bundle)
    assert bundle.task_names[:2] == ("films", "books")
    assert len(bundle.task_names) == 3
    assert bundle.lineage.parent == LoopState.of(config).champions.pointer.history()[0].digest
    certificate = bundle.certificates[None]
    assert certificate.method == "traffic"
    assert certificate.window is not None
    assert (certificate.window.after, certificate.window.upto) == (0, NUM_ROWS)
