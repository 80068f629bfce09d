"""Jobs on a Ray cluster: who may talk to it, how a job is followed, and how one that failed is told."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from kcm.errors import KcmError
from pipelines._ray_private import reread_authentication
from pipelines.cluster.connection import MODE, refused

RUN = "run"  # the key of a job's metadata under which the name of its run stands
DASHBOARD = "http://127.0.0.1:8265"  # of a local cluster, or by `ray dashboard`
POLL_S = 1.0  # between two looks at a job
RAREST_POLL_S = 30.0  # between two looks at a job with a long log
PATIENCE_S = 300.0  # how long a cluster that does not answer is waited for

Address = Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard.")]
Auth = Annotated[
    str,
    typer.Option(
        envvar="RAY_AUTH_MODE",
        metavar="MODE",
        help="disabled, or token (from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH).",
    ),
]


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


@contextmanager
def cluster_at(address: str, auth: str, fault: str = "the cluster does not answer") -> Iterator[JobSubmissionClient]:
    """A client of the cluster within the block; a KcmError, which begins with `fault`, where the cluster fails it."""
    try:
        yield job_client(address, auth)
    except AuthenticationError as error:
        raise refused(error, address) from error
    except (OSError, RuntimeError) as error:
        raise KcmError(f"{fault}: {error}", where=address) from error


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
