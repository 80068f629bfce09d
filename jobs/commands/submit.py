"""`kcm submit`, `status`, `logs` and `stop`: runs as jobs on a Ray cluster, checked by `kcm doctor` first, by name."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from ray.job_submission import JobDetails, JobSubmissionClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

import jobs
import kcm
import pipelines
from jobs.cluster import DASHBOARD, POLL_S, RUN, Address, Auth, cluster_at, followed, require_success
from jobs.commands.run import Until, check_stage
from jobs.options import Run
from kcm._messages import is_too_early
from kcm.config import with_absolute_paths
from kcm.errors import KcmError
from kcm.redact import redacted
from pipelines.config import RunConfig

CONFIG = "config.yaml"
AGENT_S = 180.0  # how long the agent of a head that has just started is waited for


def submit(
    config: Run,
    until: Until = None,
    address: Address = DASHBOARD,
    auth: Auth = "disabled",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Whether to print the job's log until it ends.")
    ] = True,
) -> dict[str, Any]:
    """Run CONFIG as a job on a cluster, after `kcm doctor` there; a job that fails gives a non-zero exit."""
    check_stage(until)
    words = ["--until", until] if until else []
    return {"submission_id": submit_job(config, [["doctor"], ["run", *words]], address, auth, follow=follow)}


def submit_job(
    config: RunConfig, commands: Sequence[Sequence[str]], address: str, auth: str, *, follow: bool = True
) -> str:
    """Submit commands of `kcm`, each with CONFIG, to the cluster at `address`; return the id of the job.

    Unless told not to, print its log until it ends. The configuration travels with all its values, and relative paths
    as those of this machine: on several machines they must lie on shared storage. `auth` is disabled, or token, which
    Ray reads from RAY_AUTH_TOKEN or from the file RAY_AUTH_TOKEN_PATH. KcmError when no cluster answers, when it
    refuses the job, or when the job does not succeed.
    """
    entrypoint = " && ".join(
        shlex.join(["python", "-m", "jobs.cli", name, CONFIG, *words]) for name, *words in commands
    )
    folder = tempfile.TemporaryDirectory(prefix="kcm-job-")
    with cluster_at(address, auth, "the cluster refused the job") as client, folder as packed:
        pack(Path(packed), config)
        started = Retrying(
            retry=retry_if_exception(is_too_early),
            stop=stop_after_delay(AGENT_S),
            wait=wait_fixed(POLL_S),
            reraise=True,
        )
        job = started(
            client.submit_job,
            entrypoint=entrypoint,
            submission_id=f"{config.name}-{secrets.token_hex(4)}",
            runtime_env={"working_dir": packed},
            metadata={RUN: config.name},
        )
    print(redacted(f"job {job} is on {address}"), file=sys.stderr)
    if not follow:
        return job
    try:
        end = followed(client, job, address)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"no longer following job {job}, which goes on; stop it by: kcm stop {config.name} --address {address}"
        ) from None
    require_success(job, end, address)
    return job


def pack(folder: Path, config: RunConfig) -> None:
    """Fill a job's working directory with nothing but the configuration and the three packages."""
    values = with_absolute_paths(config).model_dump(mode="json")  # the job works in a folder of its own
    (folder / CONFIG).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for package in (kcm, pipelines, jobs):
        source = Path(package.__path__[0])
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))


RunName = Annotated[str, typer.Argument(metavar="NAME", help="The run's name, `name` in its configuration.")]


def status(
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The run's name; without it every run.")] = None,
    address: Address = DASHBOARD,
    auth: Auth = "disabled",
) -> dict[str, Any]:
    """List the jobs of the run NAME that the cluster knows, the newest last."""
    with cluster_at(address, auth) as client:
        jobs = _jobs(client, name, address)
    for job in jobs:
        typer.echo(redacted(f"{_id(job)}  {job.status.value:9}  {_times(job)}"))
    return {
        "jobs": [
            {"submission_id": _id(job), "run": _run_of(job), "status": job.status.value, "message": job.message}
            for job in jobs
        ]
    }


def logs(
    name: RunName,
    address: Address = DASHBOARD,
    auth: Auth = "disabled",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the job ends, and exit as it does.")] = False,
) -> dict[str, Any]:
    """Print the log of the newest job of the run NAME."""
    with cluster_at(address, auth) as client:
        job = _id(_jobs(client, name, address)[-1])
        log = "" if follow else client.get_job_logs(job)
    if follow:
        require_success(job, followed(client, job, address), address)
    else:
        typer.echo(log, nl=False)
    return {"submission_id": job}


def stop(name: RunName, address: Address = DASHBOARD, auth: Auth = "disabled") -> dict[str, Any]:
    """Stop the jobs of the run NAME, and wait until they have ended; the run submitted again goes on from there."""
    with cluster_at(address, auth) as client:
        running = [_id(job) for job in _jobs(client, name, address) if not job.status.is_terminal()]
        if not running:
            raise KcmError(f"no job of the run {name!r} is running", where=address)
        for job in running:
            client.stop_job(job)
        jobs = []
        for job in running:
            while not (ended := client.get_job_status(job)).is_terminal():
                time.sleep(POLL_S)
            jobs.append({"submission_id": job, "status": ended.value})
            typer.echo(redacted(f"{job}  {ended.value}"))
    return {"jobs": jobs}


def _jobs(client: JobSubmissionClient, name: str | None, address: str) -> list[JobDetails]:
    """The jobs that `kcm submit` has started for a run, or for any, by age. KcmError where there is none."""
    ours = (job for job in client.list_jobs() if _run_of(job))
    jobs = [job for job in ours if name is None or _run_of(job) == name]
    if not jobs:
        what = f"the cluster knows no job of the run {name!r}" if name else "the cluster knows no job of a run"
        raise KcmError(what, where=address, hint="A head that was replaced has forgotten the jobs before it")
    return sorted(jobs, key=lambda job: job.start_time or 0)


def _run_of(job: JobDetails) -> str | None:
    return (job.metadata or {}).get(RUN)


def _id(job: JobDetails) -> str:
    assert job.submission_id is not None
    return job.submission_id


def _times(job: JobDetails) -> str:
    """When a job began, and how long it took or has taken."""
    if not job.start_time:
        return "has not started"
    started = datetime.fromtimestamp(job.start_time / 1000)
    seconds = (job.end_time or time.time() * 1000) / 1000 - job.start_time / 1000
    return f"since {started:%Y-%m-%d %H:%M:%S}, {seconds:,.0f} s"
