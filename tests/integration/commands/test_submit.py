"""The lines that `kcm submit` prints run a stage on a cluster that is not ours, and end as the job ends."""

import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from tests.integration.pipeline.test_precomputed import rows, values_of
from tests.ports import free_ports

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@dataclass(frozen=True)
class Head:
    """A head node in processes of its own, and the environment of whoever talks to it."""

    dashboard: str
    environment: dict[str, str]

    def submitted(self, *words: str) -> subprocess.CompletedProcess[str]:
        """How `kcm submit WORDS | sh` ended."""
        kcm = shlex.join([sys.executable, "-m", "jobs.cli", "submit", *words, "--address", self.dashboard])
        environment = self.environment | {"RAY_AUTH_MODE": "token"}
        command = ["sh", "-c", f"{kcm} | sh"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture(scope="module")
def head(request: pytest.FixtureRequest) -> Iterator[Head]:
    """`ray start --head` with its own home, folder and ports, so that the session's own cluster is not met.

    It authenticates as the parameter says, and its clients have the token.
    """
    with tempfile.TemporaryDirectory(prefix="kcm-", ignore_cleanup_errors=True) as home:  # short: sockets lie below it
        ours = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        (Path(home) / "token").write_text("0123456789abcdef" * 4)
        environment = ours | {"HOME": home, "PATH": path, "RAY_AUTH_TOKEN_PATH": f"{home}/token"}
        gcs, dashboard, client, agent, metrics = free_ports(5)
        command = [
            *("ray", "start", "--head", "--block", "--num-cpus=2", "--disable-usage-stats", "--include-dashboard=true"),
            *(f"--temp-dir={home}/ray", f"--port={gcs}", f"--dashboard-port={dashboard}"),
            *(f"--ray-client-server-port={client}", f"--dashboard-agent-listen-port={agent}"),
            *(f"--metrics-export-port={metrics}", f"--object-store-memory={100 * 2**20}"),
        ]
        with (Path(home) / "head.log").open("wb") as log:
            own = environment | {"RAY_AUTH_MODE": request.param}
            process = subprocess.Popen(command, env=own, stdout=log, stderr=log, start_new_session=True)
        try:
            yield Head(wait_until_up(f"http://127.0.0.1:{dashboard}", process), environment)
        finally:
            stop_tree(process)


def stop_tree(process: subprocess.Popen[bytes]) -> None:
    """Stop a head and all that it started, and nothing else: `ray stop` would take the session's cluster too."""
    tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
    for member in tree:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(tree, timeout=30)


def wait_until_up(dashboard: str, process: subprocess.Popen[bytes]) -> str:
    for _ in range(2400):
        assert process.poll() is None, "the head node ended"
        try:
            if httpx.get(f"{dashboard}/api/jobs/", timeout=5).status_code in (200, 401):
                return dashboard
        except httpx.TransportError:
            pass
        time.sleep(0.25)
    raise AssertionError(f"no head node at {dashboard}")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A run on rows that bring their vectors."""
    file = tmp_path / "config.yaml"
    file.write_text(yaml.safe_dump(values_of(rows(), tmp_path)))
    return file


@pytest.mark.parametrize("head", ["token"], indirect=True)
def test_the_printed_lines_run_a_stage_on_a_cluster(head: Head, config: Path, tmp_path: Path) -> None:
    """Promise: on a cluster that asks for a token as well, which lets nobody else run anything."""
    assert httpx.post(f"{head.dashboard}/api/jobs/", json={"entrypoint": "true"}, timeout=120).status_code == 401
    ended = head.submitted(str(config), "--until", "features")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "features" in ended.stdout  # the job's own log
    manifests = list((tmp_path / "storage" / "artefacts" / "features").glob("*/manifest.json"))
    assert len(manifests) == 1


@pytest.mark.parametrize("head", ["token"], indirect=True)
def test_a_job_that_fails_gives_a_non_zero_exit_and_its_reason(head: Head, config: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").unlink()
    ended = head.submitted(str(config), "--until", "features")
    assert ended.returncode != 0
    assert "rows.parquet" in ended.stdout  # the reason, in the job's log
