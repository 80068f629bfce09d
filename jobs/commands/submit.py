"""`kcm submit`: a run as a job on a Ray cluster, followed to its end."""

from __future__ import annotations

import asyncio
import logging
import os
import shlex
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import aiohttp
import typer
import yaml
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

import jobs
import kcm
import pipelines
from jobs.commands.run import Until, check_stage
from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, announce
from kcm.config import load_config, with_absolute_paths
from kcm.errors import KcmError
from kcm.redact import redacted
from pipelines._ray_private import reread_authentication
from pipelines.cluster.authentication import MODE
from pipelines.config import RunConfig

CONFIG = "config.yaml"
POLL_S = 0.5  # between two looks at the state of a job whose log has ended


def submit(
    config: ConfigFile,
    until: Until = None,
    address: Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard.")] = "http://127.0.0.1:8265",
    auth: Annotated[
        str,
        typer.Option(
            envvar="RAY_AUTH_MODE",
            metavar="MODE",
            help="disabled, or token (from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH).",
        ),
    ] = "disabled",
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run CONFIG as a job on a cluster and follow its log; a job that fails gives a non-zero exit."""
    with reported(json, debug) as result:
        check_stage(until)
        if auth not in ("disabled", "token"):
            raise KcmError(f"unknown mode {auth!r}", where="--auth or RAY_AUTH_MODE", hint="Known are disabled, token")
        announce(f"reading {config}, and looking for the cluster at {address}")
        result["submission_id"] = submit_job(load_config(RunConfig, config, overrides or ()), until, address, auth)


def submit_job(config: RunConfig, until: str | None, address: str, auth: str) -> str:
    """Submit `kcm run CONFIG` to the cluster at `address`, print its log until it ends, return its id.

    The configuration travels with all its values, and relative paths as those of this machine: on several machines they
    must lie on shared storage. `auth` is disabled, or token, which Ray reads from RAY_AUTH_TOKEN or from the file
    RAY_AUTH_TOKEN_PATH. KcmError when no cluster answers, when it refuses the job, or when the job does not succeed.
    """
    client = _client(address, auth)
    words = ["--until", until] if until else []
    with tempfile.TemporaryDirectory(prefix="kcm-job-") as folder:
        pack(Path(folder), config)
        try:
            job = client.submit_job(
                entrypoint=shlex.join(["python", "-m", "jobs.cli", "run", CONFIG, *words]),
                runtime_env={"working_dir": folder},
                metadata={"run": config.name},
            )
        except RuntimeError as error:
            raise KcmError(f"the cluster refused the job: {error}", where=address) from error
    print(redacted(f"job {job} is on {address}"), file=sys.stderr)
    try:
        _follow(client, job)
        end = _end(client, job)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"no longer following job {job}, which goes on; stop it by: ray job stop --address {address} {job}"
        ) from None
    except OSError as error:
        raise KcmError(f"lost the cluster while following job {job}: {error}", where=address) from error
    if end.status is not JobStatus.SUCCEEDED:
        reason = (end.message or "no reason given").partition(", last available logs")[0]  # which were printed already
        raise KcmError(f"job {job} ended as {end.status}: {reason}", where=address, hint="Its log stands above")
    return job


def pack(folder: Path, config: RunConfig) -> None:
    """Fill a job's working directory with nothing but the configuration and the three packages."""
    values = with_absolute_paths(config).model_dump(mode="json")  # the job works in a folder of its own
    (folder / CONFIG).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for package in (kcm, pipelines, jobs):
        source = Path(package.__path__[0])
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))


def _client(address: str, auth: str) -> JobSubmissionClient:
    # Set both ways of finding and entering a cluster: else a RAY_ADDRESS of the shell overrides the address asked for,
    # and a token left in the home folder changes how the client must connect.
    os.environ["RAY_API_SERVER_ADDRESS"], os.environ[MODE] = address, auth
    reread_authentication()
    logging.disable(logging.INFO)  # Ray's client tells of every upload
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise KcmError(
            f"no Ray cluster to submit to: {error}", where=address, hint="Give the address of the cluster's dashboard"
        ) from error


def _follow(client: JobSubmissionClient, job: str) -> None:
    """Print the log as it comes; a connection that breaks ends the log, not the job."""

    async def follow() -> None:
        async for lines in client.tail_job_logs(job):
            sys.stdout.write(lines)
            sys.stdout.flush()

    try:
        asyncio.run(follow())
    except (RuntimeError, aiohttp.ClientError) as error:
        print(f"the log of job {job} broke off ({error}); waiting for its end", file=sys.stderr)


def _end(client: JobSubmissionClient, job: str) -> JobDetails:
    while not (details := client.get_job_info(job)).status.is_terminal():
        time.sleep(POLL_S)
    return details
