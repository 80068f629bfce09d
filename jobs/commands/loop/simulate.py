"""`kcm loop`: the loop played on a table that one has, before anything is live."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, load
from jobs.views.loop import simulation_view
from jobs.views.table import result_console
from pipelines.loop.scenario import Scenario
from pipelines.loop.simulate import simulate as play

app = typer.Typer(
    help="The loop played on a table that one has, before anything is live.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.callback()
def group() -> None:
    """The loop played on a table that one has, before anything is live."""


@app.command()
def simulate(
    config: ConfigFile,
    late: Annotated[
        list[str],
        typer.Option("--late", metavar="LABELS", help="Labels that come late, with commas; again: a wave more."),
    ],
    table: Annotated[Path | None, typer.Option("--table", metavar="T", help="The table, in place of CONFIG's.")] = None,
    first: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the known labels' rows that the first champion learns.")
    ] = Scenario.first,
    feedback: Annotated[
        float, typer.Option(min=0, max=1, help="Share of the items that callers label.")
    ] = Scenario.feedback,
    error: Annotated[float, typer.Option(min=0, max=1, help="Share of these labels that are wrong.")] = Scenario.error,
    large_error: Annotated[
        float,
        typer.Option(min=0, max=1, help="Share of the large model's answers that are wrong, where none are recorded."),
    ] = Scenario.large_error,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Play runs, traffic, turns and promotions on a labelled table; the last line is the page with the curves.

    Half of the known labels' rows make the first champion. The other rows are its traffic; each wave of late labels is
    followed by two turns of the loop. Nothing is served, and the large model is played, so that nothing is paid.
    """
    with reported(json, debug) as result:
        logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every version
        values = [*(overrides or ()), *([f"tasks.source.path={table}"] if table else [])]
        waves = [[label.strip() for label in wave.split(",") if label.strip()] for wave in late]
        scenario = Scenario(waves, first, feedback, error, large_error)
        result |= play(load(config, values), scenario)
        result_console().print(simulation_view(result))
        typer.echo(result["report_path"])
