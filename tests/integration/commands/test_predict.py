"""Batch prediction of real files on a real cluster."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import ray
from pyarrow import fs
from rich.console import Console

from kcm.cascade.policy import ESCALATE_ALL, KEEP_ALL, Policy
from kcm.errors import ArtefactError, DataError
from kcm.inputs.content import Content
from kcm.inputs.location import Location, stem_of
from kcm.large import Item
from kcm.large.adapters.openai import OpenAiConfig, OpenAiModel
from kcm.large.response_cache import ResponseStore
from pipelines.batch.on_cluster import map_connected
from pipelines.batch.predict import predict
from pipelines.cluster.config import ClusterConfig
from pipelines.progress import Reporter
from tests.fake_upstream import FakeUpstream, Turn, label

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


@pytest.fixture
def run(assets_dir: Path) -> Callable[..., dict[str, Any]]:
    """`predict` without the parts that are alike in every test."""

    def run_predict(
        bundle: Path, source: str | Path, target: str | Path, text: str = "text", num_encoders: int = 1, **options: Any
    ) -> dict[str, Any]:
        reporter, cluster = Reporter(Console(quiet=True)), ClusterConfig(num_encoders=num_encoders)
        options = {"on_cluster": map_connected} | options
        return predict(
            bundle, source, target, text, cluster=cluster, assets_dir=assets_dir, reporter=reporter, **options
        )

    return run_predict


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    pd.DataFrame(rows).to_csv(path, index=False)


def test_bucket_folder_keeps_order_and_resumes_after_kill(
    quick_bundle: Callable[..., Path],
    run: Callable[..., dict[str, Any]],
    assets_dir: Path,
    served_bucket: str,
    tmp_path: Path,
) -> None:
    """Texts of two lengths take the actors different times, so that blocks come back out of order.

    The first file is short: its part is there long before the others.
    """
    sizes = {"a.jsonl": 20, "deep/b.jsonl": 520, "c.jsonl": 260}
    source, target = Location.of(f"{served_bucket}/rows"), Location.of(f"{served_bucket}/answers")
    for name, size in sizes.items():
        texts = [f"{i} " + ("long words " * 8 if i // 130 % 2 else "") for i in range(size)]
        rows = [{"id": f"{name}-{i}", "text": text} for i, text in enumerate(texts)]
        with (source / name).file_system.open_output_stream((source / name).path) as stream:
            stream.write("".join(json.dumps(row) + "\n" for row in rows).encode())
    bundle = quick_bundle(policy=Policy(decision=KEEP_ALL))
    words = ["predict", str(bundle), str(source), "--output", str(target), "--format", "csv"]
    cluster = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address, "KCM_ASSETS": str(assets_dir)}
    driver = subprocess.Popen(
        [sys.executable, "-m", "jobs.cli", *words], env=os.environ | cluster, start_new_session=True
    )
    try:
        wait_for(target / ".kcm/files/a.csv.json", driver)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    finished = (target / "a.csv").stamp()
    options: dict[str, Any] = {"num_encoders": 2, "suffix": ".csv"}
    result = run(bundle, str(source), str(target), **options)
    assert result["files"] == 3
    assert result["answered_before"] >= 1  # its tasks outlive the command by a moment, and may finish another
    assert (result["rows"], result["routes"]) == (800, {"small": 800})
    assert (target / "a.csv").stamp() == finished, "what it cost is written there, and no second time the same"
    for name, size in sizes.items():
        with (target / f"{stem_of(name)}.csv").open() as stream:
            assert pd.read_csv(stream)["id"].tolist() == [f"{name}-{i}" for i in range(size)]

    again = run(bundle, str(source), str(target), **options)
    assert again == result | {"answered_before": 3}
    with pytest.raises(ArtefactError, match=r"the output exists, and was not made of this .*a\.csv.*--overwrite"):
        run(quick_bundle(), str(source), str(target), **options)


def wait_for(record: Location, driver: subprocess.Popen[bytes], timeout_s: float = 600) -> None:
    """Wait until a part is finished, its record included."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline and driver.poll() is None:
        if record.kind() == fs.FileType.File:
            return
        time.sleep(0.02)
    raise AssertionError("no part was ever finished")


def test_what_cannot_work_is_said_before_anything_is_computed(
    quick_bundle: Callable[..., Path], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    source = tmp_path / "in.csv"
    write_csv(source, [{"text": "a"}])
    with pytest.raises(DataError, match=r"no column 'body'.*Did you mean 'text'"):
        run(quick_bundle(), source, tmp_path / "out.csv", "body")
    with pytest.raises(ArtefactError, match="the encoder differs"):
        run(quick_bundle(encoder_identity="0" * 64), source, tmp_path / "out.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_rows_that_nobody_paid_for_are_outside_the_promise(
    quick_bundle: Callable[..., Path],
    run: Callable[..., dict[str, Any]],
    sentences: list[str],
    assets_dir: Path,
    upstream: FakeUpstream,
    tmp_path: Path,
) -> None:
    """Promise: a spent budget and a dead endpoint void the certificate; answers that a run paid for cost nothing."""
    upstream.otherwise = lambda _: label("positive")
    server = OpenAiConfig(adapter="openai", model="big", api_key_env=None, base_url=upstream.base_url, max_retries=0)
    names = ("negative", "positive")
    large = {"large": server, "large_identity": server.identity(names, assets_dir), "large_head": None}
    bundle = quick_bundle(**large, policy=Policy(decision=ESCALATE_ALL))
    write_csv(tmp_path / "in.csv", [{"text": text} for text in sentences[:20]])
    store = ResponseStore.in_file(tmp_path / "paid.sqlite")
    OpenAiModel(server, names, store).answer([Item(str(n), Content(text)) for n, text in enumerate(sentences[:6])])
    asked = len(upstream.requests)

    options: dict[str, Any] = {"responses": store, "upstreams": [server.upstream.model_copy(update={"max_calls": 10})]}
    spent = run(bundle, tmp_path / "in.csv", tmp_path / "out.csv", **options)
    found = pd.read_csv(tmp_path / "out.csv")
    assert len(upstream.requests) == asked + 4, "six answers were paid for, four calls were left"
    assert spent["routes"] == {"large": 10, "small_degraded": 10}
    assert spent["outside_promise"] == 0.5
    assert "10 of 20 rows" in spent["void"]
    assert "the budget is spent: max_calls = 10" in spent["void"]
    outside = found["route"] == "small_degraded"
    assert set(found["error"][outside]) == {"outside the promise: the budget is spent: max_calls = 10"}
    assert found["error"][~outside].isna().all()

    upstream.otherwise = lambda _: Turn(status=503)
    dead = run(bundle, tmp_path / "in.csv", tmp_path / "out.csv", responses=store, upstreams=[server.upstream])
    assert dead["routes"] == spent["routes"], "what is paid for stays, the rest is asked again"
    refused = run(
        bundle,
        tmp_path / "in.csv",
        tmp_path / "none.csv",
        on_large_failure="error",
        responses=store,
        upstreams=[server.upstream],
    )
    assert refused["routes"] == {"large": 10, "error": 10}
    assert refused["outside_promise"] == 0.5

    upstream.otherwise = lambda _: label("positive")
    whole = run(bundle, tmp_path / "in.csv", tmp_path / "out.csv", responses=store, upstreams=[server.upstream])
    assert (whole["routes"], whole["outside_promise"], whole["void"]) == ({"large": 20}, 0.0, None)
