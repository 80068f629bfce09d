"""The lines that `kcm submit` prints run a stage on a cluster that is not ours, and end as the job ends."""

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from tests.integration.pipeline.test_precomputed import rows, values_of
from tools.nodes import nodes

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass(frozen=True)
class Head:
    """A cluster in processes of its own, and the environment of whoever talks to it."""

    dashboard: str
    environment: dict[str, str]

    def submitted(self, *words: str) -> subprocess.CompletedProcess[str]:
        """How `kcm submit WORDS | sh` ended."""
        kcm = shlex.join([sys.executable, "-m", "jobs.cli", "submit", *words, "--address", self.dashboard])
        command = ["sh", "-c", f"{kcm} | sh"]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """A cluster with its own folder and ports, so that the session's own cluster is not met."""
    with (
        tempfile.TemporaryDirectory(prefix="kcm-", ignore_cleanup_errors=True) as home,  # short: sockets lie below it
        nodes(Path(home), num_workers=1, cpus=2) as cluster,
    ):
        yield Head(cluster.dashboard, cluster.environment | {"HOME": home})


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run on rows that bring their vectors."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values_of(rows(), tmp_path)))
    return file


def test_the_printed_lines_run_a_stage_on_a_cluster(head: Head, config: Path, tmp_path: Path) -> None:
    """Promise: on a cluster that asks for a token as well, which lets nobody else run anything."""
    assert httpx.post(f"{head.dashboard}/api/jobs/", json={"entrypoint": "true"}, timeout=120).status_code == 401
    ended = head.submitted(str(config), "--until", "features")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "features" in ended.stdout  # the job's own log
    manifests = list((tmp_path / "storage" / "artefacts" / "features").glob("*/manifest.json"))
    assert len(manifests) == 1


def test_a_job_that_fails_gives_a_non_zero_exit_and_its_reason(head: Head, config: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").unlink()
    ended = head.submitted(str(config), "--until", "features")
    assert ended.returncode != 0
    assert "rows.parquet" in ended.stdout  # the reason, in the job's log
