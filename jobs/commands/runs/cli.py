"""`kcm run`, a command for each of its stages, and `kcm submit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, announce, is_asked, load
from kcm.errors import KcmError

STAGES = {
    "tasks": "Read the rows and split them into tasks.",
    "features": "Run the frozen encoder over every row.",
    "outcomes": "Ask the large model about every row.",
    "train": "Train KCM and MCM on the task sequence.",
    "tune": "Search gate, threshold and distillation weights on validate.",
    "evaluate": "Certify the cascade and measure it on test.",
    "register": "Store the bundle in the model registry.",
}


def run(
    config: ConfigFile,
    promote: Annotated[
        bool | None,
        typer.Option(
            "--promote/--no-promote",
            help="Whether the version becomes the champion; without either, if it saves something and is not worse than"
            " the present one.",
        ),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Go on where everything would be escalated; asked on a terminal alone.")
    ] = False,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Run every stage of CONFIG, print the result table, and the path of result.json as the last line."""
    with reported(json, debug) as result:
        result |= _run(config, overrides, promote=promote, asks=is_asked() and not yes)
        from jobs.views.table import result_console, result_view

        result_console().print(result_view(result))
        typer.echo(result["result_path"])


def stage_commands() -> Iterator[tuple[str, Callable[..., None]]]:
    """The command of each stage, by its name."""
    for stage, purpose in STAGES.items():
        command = _stage_command(stage)
        command.__doc__ = f"{purpose} Earlier stages come from the cache, or run first."
        yield stage, command


def submit(
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="run, or a stage: " + ", ".join(STAGES))],
    config: ConfigFile,
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
    """Run STAGE of CONFIG as a job on a cluster and follow its log; a job that fails gives a non-zero exit."""
    with reported(json, debug) as result:
        announce(f"reading {config}, and looking for the cluster at {address}")
        from jobs.commands.runs.submit import submit as submit_job

        if stage not in ("run", *STAGES):
            raise KcmError(f"unknown stage {stage!r}", hint="Known are run, " + ", ".join(STAGES))
        if auth not in ("disabled", "token"):
            raise KcmError(f"unknown mode {auth!r}", where="--auth or RAY_AUTH_MODE", hint="Known are disabled, token")
        result["submission_id"] = submit_job(stage, load(config, overrides), address, auth)


def _stage_command(stage: str) -> Callable[..., None]:
    def command(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
        with reported(json, debug) as result:
            result |= _run(config, overrides, until=stage)

    return command


def _run(
    config: Path,
    overrides: list[str] | None,
    until: str | None = None,
    promote: bool | None = None,
    asks: bool = False,
) -> dict[str, Any]:
    announce(f"reading {config}, and starting Ray")
    loaded = load(config, overrides)
    from pipelines.progress import Reporter
    from pipelines.run import run as run_stages

    reporter = Reporter(in_vain=_ask_to_go_on) if asks else Reporter()
    return run_stages(loaded, until=until, reporter=reporter, promote=promote)


def _ask_to_go_on() -> None:
    """Ask the person who was just warned; KeyboardInterrupt unless they want it."""
    try:
        goes_on = typer.confirm("go on?", err=True)
    except typer.Abort:  # Ctrl-C or Ctrl-D
        goes_on = False
    if not goes_on:
        raise KeyboardInterrupt("stopped before anything was paid")
