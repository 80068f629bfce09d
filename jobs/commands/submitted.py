"""`kcm status`, `kcm logs` and `kcm stop`: what `kcm submit` has put on a cluster, by the name of the run."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Annotated, Any

import typer
from ray.job_submission import JobDetails, JobSubmissionClient

from jobs.cluster import DASHBOARD, POLL_S, RUN, Address, Auth, cluster_at, followed, require_success
from kcm.errors import KcmError
from kcm.redact import redacted

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


def stop(
    name: RunName,
    address: Address = DASHBOARD,
    auth: Auth = "disabled",
) -> dict[str, Any]:
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
