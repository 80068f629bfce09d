"""The `kcm` command line: the table of its commands.

A command's module is imported when the command is called, because torch, Ray and MLflow take seconds to import. `kcm
-h` and the shell's completion list docstrings, which are read without an import.
"""

from __future__ import annotations

import ast
import atexit
import gc
import sys
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from jobs.exit import INTERRUPTED, USER_ERROR
from kcm.extras import MissingExtraError, require
from kcm.extras import load as load_part

# In the order in which `kcm -h` lists them: the module and the function of each, or the `app` of a group of commands.
COMMANDS = {
    "label": "jobs.commands.label:label",
    "run": "jobs.commands.run:run",
    "init": "jobs.commands.init:init",
    "gc": "jobs.commands.gc:gc",
    "serve": "jobs.commands.serve:serve",
    "promote": "jobs.commands.loop:promote",
    "update": "jobs.commands.loop:update",
    "versions": "jobs.commands.loop:versions",
    "rollback": "jobs.commands.loop:rollback",
    "predict": "jobs.commands.predict:predict",
    "explain": "jobs.commands.explain:explain",
    "submit": "jobs.commands.submit:submit",
    "config": "jobs.commands.reference:config",
    "log": "jobs.commands.log:app",
}

RAY = frozenset({"run", "serve", "promote", "update", "versions", "rollback", "submit"})
"""Commands that need the extra `ray`; the base installation has all others."""


_OBJECTS = 100_000  # new objects between collections: imports make a million, and none of them is garbage
USAGE_ERROR: type[Any] = typer.BadParameter.__mro__[1]  # Typer does not export it


def load(name: str) -> Any:
    """The command or group with this name; imports its module.

    Raises MissingExtraError if the installation lacks packages for the command.
    """
    if name in RAY:
        require("ray", f"kcm {name}")  # before torch is imported
    target = load_part(COMMANDS[name], f"kcm {name}")
    if not isinstance(target, typer.Typer):
        body, target = target, typer.Typer(add_completion=False, rich_markup_mode=None)
        target.command(name)(import_module("jobs.options").command(body))
    return typer.main.get_command(target)


class CommandTable(TyperGroup):
    """A group that lists commands by their docstrings, and imports them when they are called."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Names, in the order of the table."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> TyperCommand | None:
        """The command for a list: its name and its help."""
        return TyperCommand(cmd_name, help=_docstring(COMMANDS[cmd_name])) if cmd_name in COMMANDS else None

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Import the called command."""
        name, command, remaining_args = super().resolve_command(ctx, args)
        if name is None or command is None:
            return name, command, remaining_args
        if sys.stderr.isatty() and not ctx.resilient_parsing:
            typer.echo(f"loading kcm {name}", err=True)
        try:
            return name, load(name), remaining_args
        except MissingExtraError as error:
            typer.secho(f"error: {error}", fg=typer.colors.RED, err=True)
            raise typer.Exit(USER_ERROR) from None


def _docstring(target: str) -> str:
    """The docstring of a function, or of the module of a group, from its source."""
    module, _, attribute = target.partition(":")
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    documented: list[Any] = [node for node in tree.body if getattr(node, "name", "") == attribute]
    text = ast.get_docstring(documented[0] if documented else tree) or ""
    return text if documented else text.partition(": ")[2].capitalize()


app = typer.Typer(
    name="kcm",
    cls=CommandTable,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wants_version: bool) -> None:
    if wants_version:
        typer.echo(version("kcm-cascade"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Answer most inputs with a small model, and bound what that costs in accuracy."""


def main() -> None:
    """Entry point of the `kcm` command. A wrong option is one line."""
    gc.set_threshold(_OBJECTS)
    for stream in (sys.stdout, sys.stderr):  # a terminal may know fewer letters, and a text may hold half a pair
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    atexit.register(gc.freeze)  # or the interpreter's last collections visit every object, for about a second
    try:
        sys.exit(app(standalone_mode=False, prog_name="kcm"))
    except USAGE_ERROR as error:
        text = error.format_message().replace("Value error, ", "").rstrip(".")
        if "\n" in text:  # a group without a command: its help
            error.show()
            sys.exit(USER_ERROR)
        command = error.ctx.command_path if error.ctx else "kcm"
        line = f"error: {text[:1].lower()}{text[1:]}. `{command} -h` lists the options"
        typer.secho(line, fg=typer.colors.RED, err=True)
        sys.exit(USER_ERROR)
    except (KeyboardInterrupt, typer.Abort):  # outside a command's own work, such as during its import
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
