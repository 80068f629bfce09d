"""What travels to a cluster, and how following a job ends when something breaks."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import AuthenticationError
from ray.job_submission import JobStatus

from jobs import cluster as module
from jobs.commands.submit import CONFIG, pack, submit_job
from kcm.config import load_config, parse_config
from kcm.errors import KcmError
from pipelines.config import RunConfig

ADDRESS = "http://cluster:8265"
RUN = [["doctor"], ["run", "--until", "train"]]


class FakeClient:
    """A job server that keeps what it was given, and ends the job as the test says."""

    status = JobStatus.SUCCEEDED
    message = "Job finished successfully."

    def __call__(self, address: str) -> FakeClient:
        """Stands in for the class: connecting gives the one client."""
        self.environment = {name: os.environ.get(name) for name in ("RAY_API_SERVER_ADDRESS", "RAY_AUTH_MODE")}
        return self

    def submit_job(
        self, entrypoint: str, submission_id: str, runtime_env: dict[str, str], metadata: dict[str, str]
    ) -> str:
        self.entrypoint, self.name, self.sent = (
            entrypoint,
            submission_id,
            sorted(path.name for path in Path(runtime_env["working_dir"]).iterdir()),
        )
        self.looks = iter([JobStatus.RUNNING, self.status])
        return "job-1"

    def get_job_info(self, job: str) -> SimpleNamespace:
        self.now = next(self.looks)
        return SimpleNamespace(status=self.now, message=self.message)

    def get_job_logs(self, job: str) -> str:
        return "epoch 1\n" if self.now is JobStatus.RUNNING else "epoch 1\nepoch 2\n"


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    reviews = Path(__file__).parents[3] / "jobs" / "configs" / "reviews.yaml"
    return load_config(RunConfig, reviews, [f"storage_path={tmp_path}", "train.num_epochs=7", "seed=3"])


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> FakeClient:
    monkeypatch.setenv("RAY_AUTH_MODE", "as-it-was")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere:8265")
    client = FakeClient()
    monkeypatch.setattr(module, "JobSubmissionClient", client)
    monkeypatch.setattr(module, "POLL_S", 0)
    return client


def test_the_packages_and_the_whole_configuration_travel_and_nothing_else(config: RunConfig, tmp_path: Path) -> None:
    pack(tmp_path, config)
    assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG, "jobs", "kcm", "pipelines"]
    assert load_config(RunConfig, tmp_path / CONFIG) == config
    assert sum(path.stat().st_size for path in tmp_path.rglob("*")) < 3 * 2**20
    assert not list(tmp_path.rglob("__pycache__"))


def test_the_job_is_the_commands_and_its_log_is_printed_as_it_grows(
    config: RunConfig, client: FakeClient, capsys: pytest.CaptureFixture[str]
) -> None:
    assert submit_job(config, RUN, ADDRESS, "disabled") == "job-1"
    assert client.entrypoint == f"python -m jobs.cli doctor {CONFIG} && python -m jobs.cli run {CONFIG} --until train"
    assert re.fullmatch(rf"{config.name}-[0-9a-f]{{8}}", client.name)
    assert client.sent == [CONFIG, "jobs", "kcm", "pipelines"]
    assert capsys.readouterr().out == "epoch 1\nepoch 2\n"


@pytest.mark.parametrize("status", [JobStatus.FAILED, JobStatus.STOPPED])
def test_a_job_that_fails_or_is_stopped_is_an_error_without_its_log_a_second_time(
    status: JobStatus, config: RunConfig, client: FakeClient
) -> None:
    client.status = status
    client.message = "Job entrypoint command failed with exit code 2, last available logs (truncated): epoch 1"
    said = rf"job-1 ended as {status.value}: Job entrypoint command failed with exit code 2 \("
    with pytest.raises(KcmError, match=said):
        submit_job(config, RUN, ADDRESS, "disabled")


def test_an_interruption_says_that_the_job_goes_on(
    config: RunConfig, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(job: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(client, "get_job_logs", interrupted)
    with pytest.raises(
        KeyboardInterrupt, match=r"job-1, which goes on; stop it by: kcm stop reviews --address http://cluster:8265"
    ):
        submit_job(config, RUN, ADDRESS, "disabled")


def test_a_head_that_has_just_started_is_waited_for_and_one_that_refuses_is_not(
    config: RunConfig, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = ["500: No available agent to submit job, please try again later", "400: no"]
    asked, taken = iter(answers[:1]), client.submit_job

    def early(**job: Any) -> str:
        for answer in asked:
            raise RuntimeError(answer)
        return taken(**job)

    monkeypatch.setattr(client, "submit_job", early)
    monkeypatch.setattr("jobs.commands.submit.POLL_S", 0)
    assert submit_job(config, RUN, ADDRESS, "disabled") == "job-1"
    asked = iter(answers[1:])
    with pytest.raises(KcmError, match="refused the job: 400"):
        submit_job(config, RUN, ADDRESS, "disabled")


def test_a_cluster_that_is_away_for_a_while_ends_nothing(
    config: RunConfig, client: FakeClient, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looked, faults = client.get_job_info, [ConnectionError("connection refused"), RuntimeError("status code 503")]

    def flaky(job: str) -> SimpleNamespace:
        if faults:
            raise faults.pop()
        return looked(job)

    monkeypatch.setattr(client, "get_job_info", flaky)
    assert submit_job(config, RUN, ADDRESS, "disabled") == "job-1"
    assert capsys.readouterr().out == "epoch 1\nepoch 2\n"


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (ConnectionError("connection refused"), "lost the cluster while following job job-1"),
        (RuntimeError("Request failed with status code 404: Job job-1 does not exist."), "does not know job job-1 any"),
    ],
)
def test_a_cluster_that_stays_away_or_has_forgotten_the_job_is_an_error(
    fault: Exception, said: str, config: RunConfig, client: FakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(job: str) -> Any:
        raise fault

    monkeypatch.setattr(module, "PATIENCE_S", 0.0)
    monkeypatch.setattr(client, "get_job_info", gone)
    with pytest.raises(KcmError, match=said):
        submit_job(config, RUN, ADDRESS, "disabled")


@pytest.mark.parametrize("method", ["__call__", "submit_job"])
def test_a_token_that_is_missing_or_differs_is_one_line(
    method: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: FakeClient, *_: Any, **__: Any) -> str:
        raise AuthenticationError("Authentication required. More about it")

    monkeypatch.setattr(FakeClient, method, refuse)
    monkeypatch.setattr(module, "JobSubmissionClient", FakeClient())
    with pytest.raises(KcmError, match=r"refuses us: Authentication required .*RAY_AUTH_TOKEN_PATH"):
        submit_job(config, RUN, ADDRESS, "disabled")


def test_paths_of_this_folder_are_found_by_a_job_that_works_in_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, job = tmp_path / "here", tmp_path / "job"
    job.mkdir()
    for name in ("own.csv", "more/part.csv", "answers.csv", "tasks.json", "pictures/a.png", "models/mini/config.json"):
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).touch()
    monkeypatch.chdir(here)
    source = {"kind": "files", "path": ["own.csv", "more/*.csv", "s3://bucket/rows.csv"], "image_root": "pictures"}
    config = parse_config(
        RunConfig,
        {
            "name": "own",
            "tasks": {"source": source | {"text_column": "more"}, "mapping": "tasks.json"},
            "encoder": {"model": "models/mini"},
            "large": {"adapter": "recorded", "path": "answers.csv"},
            "tracking": {"uri": "sqlite:///mlflow.db"},
        },
    )
    pack(job, config)
    monkeypatch.chdir(job)
    sent = load_config(RunConfig, job / CONFIG).model_dump(mode="json")
    files = sent["tasks"]["source"]
    assert files["path"] == [f"{here}/own.csv", f"{here}/more/*.csv", "s3://bucket/rows.csv"]
    assert files["image_root"] == f"{here}/pictures"
    assert files["text_column"] == "more", "a column is no path, whatever lies here"
    assert sent["tasks"]["mapping"] == f"{here}/tasks.json"
    assert sent["encoder"]["model"] == f"{here}/models/mini"
    assert sent["large"]["path"] == f"{here}/answers.csv"
    assert sent["tracking"]["uri"] == f"sqlite:///{here}/mlflow.db"
