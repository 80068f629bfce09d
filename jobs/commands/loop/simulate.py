"""`kcm loop`: the loop played on a table that one has, before anything is live."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import CommandGroup, ConfigFile, Overrides, load, options_of
from kcm.config import parse_config
from kcm.extras import load as load_part
from pipelines.loop.simulation.scenario import Scenario

app = CommandGroup("The loop played on a table that one has, before anything is live.")


@app.add
@options_of(Scenario, "scenario")
def simulate(
    config: ConfigFile,
    scenario: dict[str, Any],
    late: Annotated[
        list[str],
        typer.Option("--late", metavar="LABELS", help="Labels that come late, with commas; again: a wave more."),
    ],
    table: Annotated[Path | None, typer.Option("--table", metavar="T", help="The table, in place of CONFIG's.")] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Play runs, traffic, turns and promotions on a labelled table; the last line is the page with the curves.

    Half of the known labels' rows make the first champion. The other rows are its traffic; each wave of late labels is
    followed by two turns of the loop. Nothing is served. A large model that is not fitted on the table is played, so
    that nothing is paid.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it tells of every version
    values = [*(overrides or ()), *([f"tasks.source.path={table}"] if table else [])]
    waves = [[label.strip() for label in wave.split(",") if label.strip()] for wave in late]
    run, played = load(config, values), parse_config(Scenario, scenario)
    result: dict[str, Any] = load_part("jobs.commands.loop.play:play", "kcm loop")(run, waves, played)
    return result
