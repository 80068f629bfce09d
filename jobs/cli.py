"""The `kcm` command line: the list of its commands. Each is declared beside its work, and can write its result as JSON.

Heavy modules (torch, ray, mlflow) are imported by the command that needs them, so that `kcm --help` is quick.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Annotated

import typer

from jobs.commands import log, route
from jobs.commands.answers import cli as answers
from jobs.commands.loop import cli as loop
from jobs.commands.reference import cli as reference
from jobs.commands.runs import cli as runs
from jobs.commands.serving import cli as serving
from jobs.commands.setup import cli as setup
from jobs.commands.storage import cli as storage
from jobs.exit import INTERRUPTED

# In the order in which `kcm --help` lists them.
COMMANDS: dict[str, Callable[..., None]] = {
    "run": runs.run,
    **dict(runs.stage_commands()),
    "init": setup.init,
    "assets": setup.assets,
    "migrate": storage.migrate,
    "verify": storage.verify,
    "gc": storage.gc,
    "serve": serving.serve,
    "promote": loop.promote,
    "update": loop.update,
    "versions": loop.versions,
    "rollback": loop.rollback,
    "approve": loop.approve,
    "labels": loop.labels,
    "predict": answers.predict,
    "explain": answers.explain,
    "submit": runs.submit,
    "config": reference.config,
    "components": reference.components,
    "version": reference.version,
}
GROUPS = {"route": route.app, "log": log.app}

app = typer.Typer(
    name="kcm",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)
for _name, _group in GROUPS.items():
    app.add_typer(_group, name=_name)


def _show_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version as installed

        typer.echo(installed("kcm-cascade"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """KAN collaborators beside a large model: continual learning, tuning and serving on Ray."""


def main() -> None:
    """Entry point of the `kcm` command."""
    try:
        app()
    except KeyboardInterrupt:  # outside of a command's own work, such as while it is imported
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
