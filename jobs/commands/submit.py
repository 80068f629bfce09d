"""`kcm submit`: a run as a job on a Ray cluster, checked by `kcm doctor` first and followed to its end."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
import yaml
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

import jobs
import kcm
import pipelines
from jobs.commands.run import Until, check_stage
from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides
from kcm._messages import is_too_early
from kcm.config import load_config, with_absolute_paths
from kcm.errors import KcmError
from kcm.redact import redacted
from pipelines._ray_private import reread_authentication
from pipelines.cluster.authentication import MODE
from pipelines.cluster.connection import refused
from pipelines.config import RunConfig

CONFIG = "config.yaml"
DASHBOARD = "http://127.0.0.1:8265"  # of a local cluster, or by `ray dashboard`
POLL_S = 1.0  # between two looks at a job
RAREST_POLL_S = 30.0  # between two looks at a job with a long log
PATIENCE_S = 300.0  # how long a cluster that does not answer is waited for
AGENT_S = 60.0  # how long the agent of a head that has just started is waited for

Address = Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard.")]
Auth = Annotated[
    str,
    typer.Option(
        envvar="RAY_AUTH_MODE",
        metavar="MODE",
        help="disabled, or token (from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH).",
    ),
]


def submit(
    config: ConfigFile,
    until: Until = None,
    address: Address = DASHBOARD,
    auth: Auth = "disabled",
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Whether to print the job's log until it ends.")
    ] = True,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run CONFIG as a job on a cluster, after `kcm doctor` there; a job that fails gives a non-zero exit."""
    with reported(json, debug) as result:
        check_stage(until)
        words = ["--until", until] if until else []
        loaded = load_config(RunConfig, config, overrides or ())
        result["submission_id"] = submit_job(loaded, [["doctor"], ["run", *words]], address, auth, follow=follow)


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
    try:
        client = job_client(address, auth)
        with tempfile.TemporaryDirectory(prefix="kcm-job-") as folder:
            pack(Path(folder), config)
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
                runtime_env={"working_dir": folder},
            )
    except AuthenticationError as error:
        raise refused(error, address) from error
    except (OSError, RuntimeError) as error:
        raise KcmError(f"the cluster refused the job: {error}", where=address) from error
    print(redacted(f"job {job} is on {address}"), file=sys.stderr)
    if not follow:
        return job
    try:
        end = followed(client, job, address)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"no longer following job {job}, which goes on; stop it by: ray job stop {job} --address {address}"
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


def job_client(address: str, auth: str) -> JobSubmissionClient:
    """A client of the cluster's jobs. KcmError where no cluster answers, or for an unknown mode of authentication."""
    if auth not in ("disabled", "token"):
        raise KcmError(f"unknown mode {auth!r}", where="--auth or RAY_AUTH_MODE", hint="Known are disabled, token")
    # Set both ways of finding and entering a cluster: else a RAY_ADDRESS of the shell overrides the address asked for,
    # and a token left in the home folder changes how the client must connect.
    os.environ["RAY_API_SERVER_ADDRESS"], os.environ[MODE] = address, auth
    reread_authentication()
    logging.disable(logging.INFO)  # Ray's client tells of every upload
    try:
        return JobSubmissionClient(address)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise KcmError(
            f"no Ray cluster answers: {error}", where=address, hint="Give the address of the cluster's dashboard"
        ) from error


def require_success(job: str, end: JobDetails, address: str) -> None:
    """Raise KcmError with the reason for a job that has not succeeded; its log has been printed."""
    if end.status is not JobStatus.SUCCEEDED:
        reason = (end.message or "no reason given").partition(", last available logs")[0]
        raise KcmError(f"job {job} ended as {end.status}: {reason}", where=address, hint="Its log stands above")


def followed(client: JobSubmissionClient, job: str, address: str) -> JobDetails:
    """Print the log of a job as it grows, and return how the job ended.

    A cluster that does not answer for a while ends neither. KcmError where it stays away, or no longer knows the job.
    """
    printed, answered = 0, time.monotonic()
    while True:
        try:
            details, log = client.get_job_info(job), client.get_job_logs(job)
        except (OSError, RuntimeError) as error:
            if "does not exist" in str(error):
                hint = "Its head was replaced: submit the run again, finished work is kept"
                raise KcmError(f"the cluster does not know job {job} any more", where=address, hint=hint) from error
            if time.monotonic() - answered > PATIENCE_S:
                raise KcmError(f"lost the cluster while following job {job}: {error}", where=address) from error
        else:
            answered = time.monotonic()
            sys.stdout.write(log[printed:])
            sys.stdout.flush()
            printed = len(log)
            if details.status.is_terminal():
                return details
        # Every look fetches the whole log: a long one is looked at less often, up to a megabyte a second.
        time.sleep(min(POLL_S * max(1.0, printed / 2**20), RAREST_POLL_S))
