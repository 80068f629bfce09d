"""The same run twice: one that was killed goes on where it was."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jobs.assets import ASSETS, fetch
from pipelines.batch import encoding
from pipelines.run import run
from tests.integration.pipeline.test_run import CONFIG, SMALL, small_config

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("ray_cluster")]


@pytest.mark.slow
def test_a_killed_run_continues_where_it_was(assets_dir, tmp_path, monkeypatch) -> None:
    for name in ASSETS:
        fetch(name, assets_dir)
    arguments = [sys.executable, "-m", "jobs.cli", "run", str(CONFIG), "--until", "features"]
    overrides = SMALL | {"storage_path": tmp_path, "assets_path": assets_dir, "encoder.batch_size": 8}
    for key, value in overrides.items():
        arguments += ["--set", f"{key}={value}"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(arguments, env=environment, start_new_session=True)
    try:
        parts = wait_for_parts(tmp_path)
    finally:
        os.killpg(driver.pid, signal.SIGKILL)
        driver.wait()
    kept = {part: part.stat().st_mtime_ns for part in parts if part.exists()}  # others are joined to a shard
    small = small_config(tmp_path, assets_dir, **{"encoder.batch_size": 8})
    seen: dict[Path, int] = {}

    def watched(sources: Any, *rest: Any, scratch: Path, **more: Any) -> Any:
        """Look at the units whenever rows are done: they go when the artefact is finished."""
        bar = more.pop("bar")

        def update(done: int, total: int) -> None:
            seen.update({part: part.stat().st_mtime_ns for part in scratch.glob("[!.]*.unit")})
            bar.update(done, total)

        return original(sources, *rest, scratch=scratch, bar=SimpleNamespace(update=update), **more)

    original = encoding.map_shards
    monkeypatch.setattr(encoding, "map_shards", watched)
    done = run(small, until="features")
    assert not done["cached"]["features"]
    assert kept.items() <= seen.items()  # a committed part is neither computed nor written again
    assert len(seen) > len(kept)


def wait_for_parts(storage: Path, count: int = 3, timeout_s: float = 600) -> list[Path]:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        parts = list(storage.rglob("scratch/[!.]*.unit"))
        if len(parts) >= count:
            return parts
        time.sleep(0.02)
    raise AssertionError("no part was ever committed")
