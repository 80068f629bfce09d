"""`kcm loop`: simulate the loop on your own table, before anything is live."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import CommandGroup, ConfigFile, Overrides, load, options_of
from kcm.config import parse_config
from kcm.extras import load as load_part
from pipelines.loop.simulation.scenario import Scenario

app = CommandGroup("Simulate the loop on your own table, before anything is live.")


@app.add
@options_of(Scenario, "scenario")
def simulate(
    config: ConfigFile,
    scenario: dict[str, Any],
    late: Annotated[
        list[str],
        typer.Option(
            "--late", metavar="LABELS", help="Labels that come late, separated by commas; repeat for another wave."
        ),
    ],
    table: Annotated[
        Path | None, typer.Option("--table", metavar="T", help="Use this table instead of CONFIG's.")
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Simulate runs, traffic and turns on a labelled table.

    The last line is the file with the result. The first champion learns half of the known labels' rows. The other rows
    are its traffic; two turns of the loop follow each wave of late labels. Nothing is served. Answers of a large model
    that is not fitted on the table come from the table, so nothing is paid.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it logs every version
    values = [*(overrides or ()), *([f"tasks.source.path={table}"] if table else [])]
    waves = [[label.strip() for label in wave.split(",") if label.strip()] for wave in late]
    run, played = load(config, values), parse_config(Scenario, scenario)
    return load_part("jobs.work.loop:play", "kcm loop")(run, waves, played)
