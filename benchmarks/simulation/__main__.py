"""Simulate runs, traffic, turns and promotions on a labelled table; the last line is the file with the result.

    python -m benchmarks.simulation CONFIG --table T --late refund,rebate --late holiday --error .05

The first champion learns half of the known labels' rows. The other rows are its traffic; two turns of the loop follow
each wave of late labels. Nothing is served. Answers of a large model that is not fitted on the table come from the
table, so nothing is paid.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.simulation.scenario import Scenario
from benchmarks.simulation.simulate import simulate
from jobs.options import ConfigFile, Overrides, command, load, options_of
from jobs.views.table import line, result_console, table
from kcm.config import parse_config
from kcm.report.formats import percent

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command()
@command
@options_of(Scenario, "scenario")
def main(
    config: ConfigFile,
    scenario: dict[str, Any],
    late: Annotated[
        list[str],
        typer.Option(
            "--late", metavar="LABELS", help="Labels that come late, separated by commas; repeat for another wave."
        ),
    ],
    rows: Annotated[
        Path | None, typer.Option("--table", metavar="T", help="Use this table instead of CONFIG's.")
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Simulate runs, traffic, turns and promotions on a labelled table."""
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it logs every version
    values = [*(overrides or ()), *([f"tasks.source.path={rows}"] if rows else [])]
    waves = [[label.strip() for label in wave.split(",") if label.strip()] for wave in late]
    result = simulate(load(config, values), waves, parse_config(Scenario, scenario))
    show(result)
    return result


def show(result: Mapping[str, Any]) -> None:
    """Print the traffic before each turn, what the turn came to, and the path of `simulation.json`, which has more."""
    periods = (
        {
            "wave": str(period["wave"] + 1),
            "answered by": period["version"],
            "items": f"{period['items']:,}",
            "calls saved": percent(period["kept"] / period["items"]),
            "right": percent(period["right"] / period["items"]),
            "new items": f"{period['late']:,}",
            "saved after": percent(period["saved_after"]),
            "the turn": f"{'promoted' if period['promoted'] else 'not promoted'}: {period['reason']}",
        }
        for period in result["periods"]
    )
    console = result_console()
    console.print(table("The simulated loop", periods))
    replayed = "replayed from the table; without a recorded answer, the true label with some errors"
    console.print(line("large model", replayed if result["played"] else "the run's own"))
    typer.echo(result["result_path"])


if __name__ == "__main__":
    app()
