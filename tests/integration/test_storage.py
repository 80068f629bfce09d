"""A run whose storage is a bucket survives what a network and a cluster do to it, and ends as one on a local disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
import yaml

from pipelines.config import RunConfig
from pipelines.run import run
from pipelines.store.artefact import ArtefactStore
from pipelines.store.control import Control, Versioned
from pipelines.store.features import SECONDS, read_task
from pipelines.store.files import ObjectFiles
from tests.flaky_proxy import FAULTS, FlakyProxy
from tests.integration.test_run import spoken_config
from tests.outside import install_extension
from tests.seaweed import ObjectServer

pytestmark = pytest.mark.integration


def test_no_increment_is_lost_where_requests_are_dropped_delayed_and_duplicated(
    served_bucket: str, object_server: ObjectServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise: a put whose answer was lost, or that came twice, counts once; of many writers one wins each version."""
    proxy = FlakyProxy(object_server.url, share=0.4)
    with proxy.running() as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)

        def count(times: int) -> None:
            control = Control(ObjectFiles(served_bucket))
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
        assert Control(ObjectFiles(served_bucket)).get("counter") == Versioned(24, b"24")
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
        "features": timeless(read_task(made["features"].folder, 0), SECONDS),
        "outcomes": timeless(read_task(made["outcomes"].folder, 0), "large_cost"),
        "accuracy": state["accuracy"],
        "weights": {name: tensor.tolist() for name, tensor in state["collaborator"].items()},
        "policy": json.loads((deployed / "policy.json").read_text()),
    }


def timeless(table: pa.Table, seconds: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = table.drop_columns([seconds]).to_pydict()
    return found


def wait_until(ready: Callable[[], bool], process: subprocess.Popen[str], timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not ready():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.usefixtures("ray_cluster")
def test_a_run_on_a_bucket_is_taken_over_by_another_node_behind_a_bad_network(
    served_bucket: str,
    object_server: ObjectServer,
    cluster_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Promise: a second driver is told who the first is; killed, the first is continued by a node that has nothing.

    That node's own connection drops, delays and duplicates requests, and the end is that of a run on a local disk.
    """
    install_extension(cluster_path)
    monkeypatch.syspath_prepend(cluster_path)
    config = spoken_config(served_bucket, tmp_path)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    command = [sys.executable, "-m", "jobs.cli", "run", str(tmp_path / "run.yaml")]
    ours = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    ours["PYTHONPATH"] = os.pathsep.join(filter(None, [str(cluster_path), os.environ.get("PYTHONPATH")]))
    files = ObjectFiles(served_bucket)
    first = subprocess.Popen(
        command, env=ours, start_new_session=True, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        wait_until(lambda: any(files.list("control/leases/runs")), first)
        second = subprocess.run(command, env=ours, capture_output=True, text=True, timeout=120, check=False)
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
        continued = run(config)
        assert continued["cached"]["features"]
        assert continued["cached"]["outcomes"]
        assert not continued["cached"]["tune"]
        assert proxy.faults.total() > 0
        found = content(config)
    on_disk = spoken_config(tmp_path / "storage", tmp_path)
    run(on_disk)
    assert found == content(on_disk)
