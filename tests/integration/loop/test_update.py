"""The loop on real models and text: traffic of a new domain is learned, certified and judged; a killed turn goes on."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from jobs.assets import ASSETS, fetch
from jobs.commands.loop.turns import update, versions
from jobs.models import served_model
from kcm.bundle.answers import Input
from kcm.bundle.bundle import Bundle
from kcm.errors import ArtefactError
from kcm.inputs.content import Content
from kcm.tasks.readers.reviews import read_reviews
from pipelines.config import RunConfig
from pipelines.loop.simulation.local_service import local_service
from pipelines.loop.state import LoopState
from pipelines.run import run
from pipelines.serve.log.entries import Feedback
from tests.full_disk import Disk
from tests.integration.pipeline.test_run import SMALL, small_config

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]

LOOP = {
    "name": "loop",
    "collaborators": "[kcm]",
    "tasks.source": "{kind: reviews, domains: [reviews, movies, editorials]}",
    "train.mask_unseen": "true",
    "serve.audit.share": 0.5,
    "serve.feedback.store_payloads": "all",
    "update": "{min_large_answers: 50, gates: {max_old_task_loss: 0.5, max_cost: 9, max_latency: 9}}",
}
NUM_ROWS = 320


@pytest.fixture(scope="module")
def config(assets_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    """A champion on three domains, and a log of a fourth, with labels for some of it."""
    for name in ASSETS:
        fetch(name, assets_dir)
    config = small_config(tmp_path_factory.mktemp("storage"), assets_dir, **LOOP)
    run(config)
    asyncio.run(send_tweets(config))
    shutil.copytree(config.storage_path, untouched(config))
    return config


async def send_tweets(config: RunConfig) -> None:
    """Requests of 32 tweets, of which the first one's label is given."""
    rows = [row for row in read_reviews(config.assets_path) if row.task == "tweets"][:NUM_ROWS]
    async with local_service(config) as service:
        for start in range(0, NUM_ROWS, 32):
            part, request_id = rows[start : start + 32], str(uuid.uuid4())
            await service.predict([Input(Content(row.text)) for row in part], request_id)
            await service.feedback(request_id, None, [Feedback(0, str(part[0].label))])


def untouched(config: RunConfig) -> Path:
    """A copy of the storage as it was before any turn."""
    return config.storage_path.with_name("untouched")


def start(config: RunConfig, folder: Path) -> subprocess.Popen[str]:
    """`kcm update` in a process of its own."""
    values = SMALL | LOOP | {"storage_path": config.storage_path, "assets_path": config.assets_path}
    words = [word for key, value in values.items() for word in ("--set", f"{key}={value}")]
    file = Path(__file__).parents[3] / "jobs/configs/reviews.yaml"
    command = [sys.executable, "-m", "jobs.cli", "update", str(file), *words, "--json", str(folder / "result.json")]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def artefacts(config: RunConfig) -> set[str]:
    """Names of all that is finished."""
    return {str(path.parent) for path in config.storage_path.glob("artefacts/*/*/manifest.json")}


@pytest.mark.slow
def test_a_disk_that_fills_during_a_turn_leaves_the_champion_and_the_turn_goes_on_once_there_is_room(
    config: RunConfig, assets_dir: Path, disk: Disk
) -> None:
    storage = disk.folder / "storage"
    shutil.copytree(untouched(config), storage)
    moved = small_config(storage, assets_dir, **LOOP)
    for free in (0, 1 << 20, 3 << 20):
        disk.fill(free)
        with pytest.raises(ArtefactError, match=rf"the disk is full \({storage}"):
            update(moved)
        disk.clear()
        current = LoopState.of(moved).champions.pointer.current()
        assert current is not None
        assert current.champion.version == "loop/1"
    assert update(moved)["upto"] == NUM_ROWS


@pytest.mark.slow
def test_a_turn_that_is_killed_goes_on(config: RunConfig, tmp_path: Path) -> None:
    """Promise: SIGKILL while the networks learn costs what they had learned since their last checkpoint."""
    killed = start(config, tmp_path)
    deadline = time.monotonic() + 400
    while not list(config.storage_path.glob("artefacts/extend/*/scratch")):
        assert killed.poll() is None, killed.stdout and killed.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.1)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    before = artefacts(config)
    result = update(config)
    assert before < artefacts(config)
    assert (result["after"], result["upto"]) == (0, NUM_ROWS)


@pytest.fixture(scope="module")
def result(config: RunConfig) -> dict[str, Any]:
    return update(config)


def test_a_turn_ends_with_a_registered_challenger_and_its_promotion_gates(config: RunConfig, result) -> None:
    turn = json.loads(Path(result["result_path"]).read_text())["turns"][-1]
    assert turn["version"] == "loop/2"
    gates = ["rows", "probe", "panel", "champion", "certificate", "old_tasks", "call_rate", "cost", "latency"]
    assert list(turn["gates"]) == gates
    assert turn["gates"]["probe"]["verdict"] == turn["gates"]["panel"]["verdict"] == "pass"
    assert set(turn["gates"]["old_tasks"]["figures"]["tasks"]) == {"reviews", "movies", "editorials"}
    assert turn["certificate"]["window"] == [0, NUM_ROWS]
    assert turn["labels"] == NUM_ROWS / 32
    state = LoopState.of(config)
    tags = MlflowClient(state.champions.uri).get_model_version("loop", "2").tags
    assert tags["kcm.parent"] == state.champions.pointer.history()[0].digest
    assert [each["version"] for each in versions(config)["versions"]] == ["loop/2", "loop/1"]


def test_the_challenger_knows_one_task_more_and_whom_it_continues(config: RunConfig, result) -> None:
    bundle = Bundle.read(served_model(config, "loop/2").bundle)
    assert bundle.task_names[:3] == ("reviews", "movies", "editorials")
    assert len(bundle.task_names) == 4
    assert bundle.lineage.parent == LoopState.of(config).champions.pointer.history()[0].digest
    certificate = bundle.certificates[None]
    assert certificate.method == "traffic"
    assert certificate.window is not None
    assert (certificate.window.after, certificate.window.upto) == (0, NUM_ROWS)


def test_nothing_new_is_nothing_to_do(config: RunConfig, result) -> None:
    before = artefacts(config)
    again = update(config)
    assert not again["changed"] or result["promoted"]
    assert artefacts(config) == before
