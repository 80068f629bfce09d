"""`kcm submit`: a run as a job on a Ray cluster, by Ray's own commands."""

from __future__ import annotations

import secrets
import shlex
import shutil
import tempfile
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from jobs.commands.run import Until
from jobs.options import Run
from kcm.config import with_absolute_paths

if TYPE_CHECKING:
    from pipelines.config import RunConfig

PACKAGES = ("kcm", "pipelines", "jobs")
CONFIG = "config.yaml"
DASHBOARD = "http://127.0.0.1:8265"  # dashboard of a local cluster, or of `ray dashboard`


def submit(
    config: Run,
    until: Until = None,
    address: Annotated[str, typer.Option(metavar="URL", help="The cluster's dashboard.")] = DASHBOARD,
) -> dict[str, Any]:
    """Print `ray job` commands that run CONFIG on a cluster.

    CONFIG and the packages are packed first: `kcm submit CONFIG | sh`.
    """
    folder = Path(tempfile.mkdtemp(prefix=f"kcm-{config.name}-"))
    pack(folder, config)
    name = f"{config.name}-{secrets.token_hex(4)}"
    stages = ["--until", until] if until else []
    place = ["--address", address]
    job = ["ray", "job", "submit", *place, "--submission-id", name, "--working-dir", str(folder)]
    typer.echo(shlex.join([*job, "--", "python", "-m", "jobs.cli", "run", CONFIG, *stages]))
    for verb in (["status"], ["logs", "--follow"], ["stop"]):
        typer.echo(f"# {shlex.join(['ray', 'job', *verb, *place, name])}")
    return {"submission_id": name, "working_dir": str(folder)}


def pack(folder: Path, config: RunConfig) -> None:
    """Fill a job's working directory with only the configuration and the three packages.

    The configuration has all its values, with absolute paths: the job works in its own folder.
    """
    values = with_absolute_paths(config).model_dump(mode="json")
    (folder / CONFIG).write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
    for package in PACKAGES:
        source = Path(import_module(package).__path__[0])
        shutil.copytree(source, folder / source.name, ignore=shutil.ignore_patterns("__pycache__"))
