"""`kcm config`, `kcm components` and `kcm version`: what this installation knows."""

from __future__ import annotations

import typer

from jobs.exit import reported
from jobs.options import Debug, JsonFile


def config(json: JsonFile = None, debug: Debug = False) -> None:
    """Print the reference of every configuration key as Markdown."""
    with reported(json, debug) as result:
        from jobs.commands.reference.configuration import configuration_reference
        from pipelines.config import RunConfig

        result["markdown"] = configuration_reference(RunConfig)
        typer.echo(result["markdown"], nl=False)


def components(json: JsonFile = None, debug: Debug = False) -> None:
    """List the sources, encoders, large models, learners and gate scores that a configuration can name."""
    with reported(json, debug) as result:
        from jobs.commands.reference.components import components_view, known_components
        from jobs.views.table import result_console

        result |= known_components()
        result_console().print(components_view())


def version(json: JsonFile = None, debug: Debug = False) -> None:
    """Print the version."""
    with reported(json, debug) as result:
        from importlib.metadata import version as installed

        result["version"] = installed("kcm-cascade")
        typer.echo(result["version"])
