"""What `kcm run` does."""

from __future__ import annotations

from typing import Any

import typer

from jobs.views.table import result_console, result_view
from pipelines.config import RunConfig
from pipelines.progress import Reporter
from pipelines.run import run as run_stages


def run(config: RunConfig, until: str | None, **settings: Any) -> dict[str, Any]:
    """Run the stages, up to `until` if given, and print the table."""
    result = run_stages(config, until=until, reporter=Reporter(), **settings)
    if until is None:
        result_console().print(result_view(result))
        typer.echo(result["result_path"])
    return result
