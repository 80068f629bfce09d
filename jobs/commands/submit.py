"""`kcm submit`: a run as a job on a Ray cluster, checked by `kcm doctor` first and followed to its end."""

from __future__ import annotations

import secrets
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_fixed

import jobs
import kcm
import pipelines
from jobs.cluster import DASHBOARD, POLL_S, RUN, Address, Auth, cluster_at, followed, require_success
from jobs.commands.run import Until, check_stage
from jobs.options import Run
from kcm._messages import is_too_early
from kcm.config import with_absolute_paths
from kcm.redact import redacted
from pipelines.config import RunConfig

CONFIG = "config.yaml"
AGENT_S = 60.0  # how long the agent of a head that has just started is waited for


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
