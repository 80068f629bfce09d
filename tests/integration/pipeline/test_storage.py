"""A run whose storage is a bucket survives what a network and a cluster do to it, and ends as one on a local disk."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from benchmarks.simulation.local_service import local_service
from jobs.work.turns import update
from kcm.bundle.answers import Input
from kcm.inputs.content import Content
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState
from pipelines.registry.champion import Champion
from pipelines.run import run
from pipelines.store.artefact import ArtefactStore
from pipelines.store.features import SECONDS
from pipelines.store.files import Files
from pipelines.store.records import Control, StoredLedger, Versioned
from pipelines.store.sequence import ShardedArtefact
from tests.damage import damaged
from tests.flaky_proxy import FAULTS, FlakyProxy
from tests.outside import install_extension
from tests.seaweed import ObjectServer
from tests.spoken import spoken_config, write_spoken_texts

pytestmark = pytest.mark.integration

NUM_DECISIONS = 160  # of a turn


def test_no_increment_is_lost_on_a_bad_network(
    served_bucket: str, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a put whose answer was lost, or that came twice, counts once; of many writers one wins each version."""
    proxy = FlakyProxy(object_server.url, share=0.4)
    with proxy.running() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)

        def count(times: int) -> None:
            control = Control(Files(served_bucket))
            for _ in range(times):
                while True:
                    current = control.get("counter") or Versioned(0, b"0")
                    if control.swap("counter", current.version, str(int(current.value) + 1).encode()):
                        break

        threads = [threading.Thread(target=count, args=(3,)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Control(Files(served_bucket)).get("counter") == Versioned(24, b"24")
    assert proxy.faults.keys() == set(FAULTS)


def content(config: RunConfig) -> dict[str, Any]:
    """What a run's artefacts say, but for the seconds that its work took."""
    store = ArtefactStore(config.storage_path)
    made = {stage: store.finished(stage)[0] for stage in ("tasks", "features", "outcomes", "train", "tune", "evaluate")}
    deployed = made["evaluate"].folder / "kcm"
    state = torch.load(made["train"].folder / "kcm.pt", weights_only=True)
    return {
        "fingerprints": {stage: artefact.fingerprint for stage, artefact in made.items()},
        "rows": made["tasks"].manifest["files"],
        "features": timeless(made["features"].as_a(ShardedArtefact).task(0), SECONDS),
        "outcomes": timeless(made["outcomes"].as_a(ShardedArtefact).task(0), "large_cost"),
        "accuracy": state["accuracy"],
        "weights": {name: tensor.tolist() for name, tensor in state["collaborator"].items()},
        "policy": json.loads((deployed / "policy.json").read_text()),
    }


def timeless(table: pa.Table, seconds: str) -> dict[str, list[Any]]:
    return table.drop_columns([seconds]).to_pydict()


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 600) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@contextmanager
def killed_at(name: str, files: Files, server: ObjectServer) -> Iterator[None]:
    """A block in which the server is killed, and started again, as soon as there are files below a name."""
    failed = threading.Event()

    def kill() -> None:
        while not any(files.list(name)):
            if failed.wait(0.05):
                return
        server.kill()
        time.sleep(1)
        server.start()

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        yield
    except BaseException:
        failed.set()
        raise
    finally:
        killer.join()


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_another_node_takes_over_a_run_on_a_bucket(
    served_bucket: str,
    object_server: ObjectServer,
    cluster_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: a second driver learns who the first is; killed, the first is continued by a node that has nothing.

    That node's own connection drops, delays and duplicates requests, its credentials expire, the storage's server is
    killed, and the end is that of a run on a local disk.
    """
    install_extension(cluster_path)
    monkeypatch.syspath_prepend(cluster_path)
    config = spoken_config(served_bucket, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    command = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path / "run.yaml")]
    ours = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, [str(cluster_path), os.environ.get("PYTHONPATH")]))
    files = Files(served_bucket)
    first = subprocess.Popen(
        command, env=ours, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_until(lambda: any(files.list("control/leases/runs")), first)
        second = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=400, check=False)
        assert second.returncode == 2
        assert f"process {first.pid} of" in second.stderr
        wait_until(lambda: any("scratch/checkpoints" in each.name for each in files.list("artefacts/train")), first)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()

    proxy = FlakyProxy(object_server.url, share=0.1)
    with monkeypatch.context() as patch, proxy.running() as url:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("KCM_CACHE", str(tmp_path / "another node"))
        proxy.expires_at = "artefacts/tune"
        through = ours | {"AWS_ENDPOINT_URL": url, "KCM_CACHE": str(tmp_path / "another node")}
        third = subprocess.run(command, env=through, capture_output=True, text=True, timeout=600, check=False)
        assert third.returncode == 2
        assert "the credentials have expired" in third.stderr
        proxy.renew()
        with killed_at("artefacts/tune", files, object_server):
            continued = run(config)
        assert continued["cached"]["features"]
        assert continued["cached"]["outcomes"]
        assert not continued["cached"]["tune"]
        assert proxy.faults.total() > 0
        found = content(config)
    on_disk = spoken_config(tmp_path / "storage", tmp_path)
    run(on_disk)
    assert found == content(on_disk)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_empty_nodes_continue_the_loop_on_a_bucket(
    served_bucket: str, cluster_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: champions, attempts, the ledger and loop.json are in the bucket, with all that the next turn reads.

    What is forgotten meanwhile leaves it, too; and the driver of a run has fetched no shard from it.
    """
    install_extension(cluster_path)
    monkeypatch.syspath_prepend(cluster_path)
    log = {"url": f"sqlite:///{tmp_path / 'feedback.db'}", "store_payloads": "text"}
    config = spoken_config(
        served_bucket,
        tmp_path,
        learner={"name": "replay", "memory": 50},
        train={"num_epochs": 1, "mask_unseen": True},
        serve={"feedback": log, "audit": {"share": 0.9}},
        update={"min_large_answers": 20, "gates": {"max_old_task_loss": 0.9}},
    )
    assert not [name for name in fetched_here(lambda: run(config)) if name.endswith(".parquet")]
    write_spoken_texts(tmp_path / "traffic", 2 * NUM_DECISIONS)
    texts = [file.read_text() for file in sorted((tmp_path / "traffic").glob("*/*.txt"), key=lambda file: file.name)]

    def on_another_node(name: str) -> dict[str, Any]:
        monkeypatch.setenv("KCM_CACHE", str(tmp_path / name))
        result = update(config)
        if result["changed"] and not result["promoted"]:  # the rows are few, so that a gate may stay undecided
            champions = LoopState.of(config).champions
            candidate = Champion.model_validate(result["candidate"] | {"after": result["upto"], "by": "promote"})
            champions.promote(candidate, expected=champions.present().number)
        return result

    play(config, texts[:NUM_DECISIONS])
    first = on_another_node("second")
    assert (first["version"], first["after"], first["upto"]) == ("extended/2", 0, NUM_DECISIONS)
    assert not on_another_node("third")["changed"]
    play(config, texts[NUM_DECISIONS : 2 * NUM_DECISIONS])
    second = on_another_node("fourth")
    assert (second["version"], second["after"]) == ("extended/3", NUM_DECISIONS)
    state = json.loads(Files(served_bucket).read("runs/extended/loop.json"))
    assert [turn["version"] for turn in state["turns"]] == ["extended/2", "extended/3"]
    looks = StoredLedger.of_lineage(ArtefactStore(served_bucket).control, "extended").looks()
    assert [look.number for look in looks] == [1, 2]
    assert damaged(ArtefactStore(served_bucket)) == []


def fetched_here(work: Callable[[], object]) -> list[str]:
    """What this process fetches of buckets while it does some work, as a driver does."""
    names, get = list[str](), Files.get

    def watched(files: Files, name: str, target: Path) -> str:
        names.append(name)
        return get(files, name, target)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Files, "get", watched)
        work()
    return names


def play(config: RunConfig, texts: list[str]) -> None:
    """Put texts to the champion."""
    requests = {str(uuid.uuid4()): texts[at : at + 16] for at in range(0, len(texts), 16)}

    async def send() -> None:
        async with local_service(config) as service:
            for request_id, asked in requests.items():
                await service.predict([Input(Content(text)) for text in asked], request_id)

    asyncio.run(send())
