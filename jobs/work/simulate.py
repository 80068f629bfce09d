"""What `kcm loop simulate` does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import typer

from jobs.views.loop import simulation_view
from jobs.views.table import result_console
from pipelines.config import RunConfig
from pipelines.loop.simulation.scenario import Scenario
from pipelines.loop.simulation.simulate import simulate


def play(config: RunConfig, waves: Sequence[Sequence[str]], scenario: Scenario) -> dict[str, Any]:
    """Play the loop, print the turns and the path of the result, and return it."""
    result = simulate(config, waves, scenario)
    result_console().print(simulation_view(result))
    typer.echo(result["result_path"])
    return result
