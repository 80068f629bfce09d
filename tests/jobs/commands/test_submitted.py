"""The jobs of a run on a cluster are listed, read and stopped by the run's name."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus
from typer.testing import CliRunner, Result

from jobs import cluster
from jobs.cli import app
from jobs.commands import submit


def job(name: str, run: str | None, status: JobStatus, start_time: int) -> SimpleNamespace:
    metadata = {"run": run} if run else None
    return SimpleNamespace(
        submission_id=name, metadata=metadata, status=status, start_time=start_time, end_time=None, message="so it is"
    )


class FakeClient:
    """A job server with two runs' jobs and somebody else's; a job that is stopped ends at the second look."""

    def __init__(self) -> None:
        self.jobs = [
            job("mine-new", "mine", JobStatus.RUNNING, 3_000),
            job("mine-old", "mine", JobStatus.FAILED, 1_000),
            job("other-one", "other", JobStatus.SUCCEEDED, 2_000),
            job("script", None, JobStatus.RUNNING, 4_000),
        ]
        self.stopped: list[str] = []
        self.looks = [JobStatus.RUNNING, JobStatus.STOPPED]

    def list_jobs(self) -> list[SimpleNamespace]:
        return self.jobs

    def get_job_logs(self, name: str) -> str:
        return f"log of {name}\n"

    def get_job_info(self, name: str) -> SimpleNamespace:
        (found,) = (each for each in self.jobs if each.submission_id == name)
        return SimpleNamespace(status=JobStatus.FAILED, message=found.message)

    def stop_job(self, name: str) -> None:
        self.stopped.append(name)

    def get_job_status(self, name: str) -> JobStatus:
        return self.looks.pop(0)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE"):  # the client sets them: have them restored
        monkeypatch.setenv(name, "disabled" if name == "RAY_AUTH_MODE" else "")
    client = FakeClient()
    monkeypatch.setattr(cluster, "JobSubmissionClient", lambda address: client)
    monkeypatch.setattr(submit, "POLL_S", 0)
    return client


def kcm(*words: str) -> Result:
    return CliRunner().invoke(app, words)


def test_the_jobs_of_a_run_are_listed_the_newest_last(client: FakeClient, tmp_path: Path) -> None:
    shown = kcm("status", "mine", "--json", str(tmp_path / "out.json"))
    assert shown.exit_code == 0, shown.stderr
    assert [line.split()[:2] for line in shown.stdout.splitlines()] == [["mine-old", "FAILED"], ["mine-new", "RUNNING"]]
    listed = json.loads((tmp_path / "out.json").read_text())["jobs"]
    assert listed[0] == {"submission_id": "mine-old", "run": "mine", "status": "FAILED", "message": "so it is"}


def test_a_log_that_is_followed_ends_as_its_job_does(client: FakeClient) -> None:
    shown = kcm("logs", "mine", "--follow")
    assert (shown.exit_code, shown.stdout) == (2, "log of mine-new\n")
    assert "job mine-new ended as FAILED: so it is" in shown.stderr


def test_the_running_jobs_of_a_run_are_stopped_and_waited_for(client: FakeClient) -> None:
    shown = kcm("stop", "mine")
    assert (shown.exit_code, shown.stdout) == (0, "mine-new  STOPPED\n")
    assert client.stopped == ["mine-new"]
    assert client.looks == []


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["status", "typo"], "the cluster knows no job of the run 'typo' (http://127.0.0.1:8265)"),
        (["logs", "typo"], "the cluster knows no job of the run 'typo'"),
        (["stop", "other"], "no job of the run 'other' is running"),
        (["stop", "mine", "--auth", "tokens"], "unknown mode 'tokens'"),
    ],
)
def test_what_cannot_be_is_one_line(words: list[str], expected: str, client: FakeClient) -> None:
    shown = kcm(*words)
    assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
    assert expected in shown.stderr
    assert client.stopped == []


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (ConnectionError("connection refused"), "the cluster does not answer: connection refused"),
        (AuthenticationError("Authentication required. More about it"), "refuses us: Authentication required"),
    ],
)
def test_a_cluster_that_refuses_or_is_away_is_one_line(
    fault: Exception, expected: str, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> Any:
        raise fault

    monkeypatch.setattr(client, "list_jobs", fail)
    shown = kcm("status")
    assert (shown.exit_code, shown.stderr.count("\n")) == (2, 1)
    assert expected in shown.stderr
