"""`kcm config`: what a configuration can say."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table

from jobs.configuration_page import configuration_reference
from jobs.exit import reported
from jobs.options import Debug, JsonFile
from jobs.views.table import result_console
from kcm.components import FAMILIES
from pipelines.config import RunConfig


def config(
    components: Annotated[
        bool,
        typer.Option("--components", help="List sources, encoders, large models, learners and gate scores instead."),
    ] = False,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Print the reference of every configuration key as Markdown, or list the components that one can name."""
    with reported(json, debug) as result:
        if components:
            result |= {name: [asdict(component) for component in family.known()] for name, family in FAMILIES.items()}
            result_console().print(components_view())
        else:
            result["markdown"] = configuration_reference(RunConfig)
            typer.echo(result["markdown"], nl=False)


def components_view() -> Table:
    """The known components of every family, with the packages that register them."""
    table = Table(box=None, pad_edge=False, caption="One of your own is named by package.module:Class.")
    for column in ("family", "key", "tag", "from", "class"):
        table.add_column(column, no_wrap=True)
    for name, family in FAMILIES.items():
        for row, component in enumerate(family.known()):
            first = (name, family.tag) if row == 0 else ("", "")
            origin = f"{component.package} {component.version}" if component.package else "built in"
            table.add_row(*first, component.tag, origin, component.path)
    return table
