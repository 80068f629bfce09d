"""What `kcm log` does: counts of a log of decisions, the log as a file, deletion from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

from jobs.settings import ServiceSettings
from jobs.views.loop import stats_view
from jobs.views.table import result_console
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.loop.purging import purge as purge_artefacts
from pipelines.loop.state import LoopState
from pipelines.serve.log.database import require_log
from pipelines.serve.log.decisions import DecisionLog
from pipelines.serve.log.window import LogReader

TIMEOUT_S = 30.0


def stats(config: RunConfig) -> dict[str, Any]:
    """Print and return the counts of the log."""
    with LogReader(*_log_of(config)) as log:
        watermark = log.watermark()
        result = {"watermark": watermark, "missing": log.gaps(0, watermark)} | log.stats()
        result["drift"] = {version: log.drift(version) for version in result["versions"]}
    result_console().print(stats_view(result))
    return result


def export(config: RunConfig, output: Path, after: int, upto: int | None) -> dict[str, Any]:
    """Write the decisions after one and up to another."""
    url, application = _log_of(config)
    with LogReader(url, application) as log:
        end = log.watermark() if upto is None else min(upto, log.watermark())
        number = log.export(output, after, end)
    typer.echo(str(output))
    return {"application": application, "decisions": number, "after": after, "upto": end, "file": str(output)}


def forget(config: RunConfig, caller: str | None, request: str | None) -> dict[str, Any]:
    """Delete what a caller or a request left. Raises KcmError if the log holds nothing of it."""
    url, application = _log_of(config)
    require_log(url)
    what = f"caller {caller!r}" if caller is not None else f"request {request!r}"
    with DecisionLog(url, TIMEOUT_S, application) as log:
        forgotten = log.forget_request(*_parsed(str(request))) if caller is None else log.forget_caller(caller)
    if not forgotten.num_items:
        raise KcmError(
            f"the log holds nothing of {what}, or has forgotten it",
            where=application,
            hint="What was answered just now is in the log a second later",
        )
    typer.echo(f"{forgotten.num_items} items of {what} are forgotten")
    typer.echo("the next `kcm update` trains without them; then `kcm log purge` empties what earlier versions keep")
    return {"items": forgotten.num_items, "units": sorted(forgotten.units)}


def purge(config: RunConfig) -> dict[str, Any]:
    """Remove from artefacts what was forgotten."""
    with LogReader(*_log_of(config)) as log:
        key, units = log.unit_key, log.forgotten()
    purged = purge_artefacts(LoopState.of(config), key, units)
    counted = f"{len(purged.emptied)} artefacts are emptied, {len(purged.windows)} windows erased"
    typer.echo(f"{len(units)} forgotten units: {counted}")
    return {"units": len(units), "emptied": purged.emptied, "windows": purged.windows}


def _log_of(config: RunConfig) -> tuple[str, str]:
    """The URL of the log of a run's service, and the application whose decisions they are."""
    serve: Any = ServiceSettings.of(config).serve  # a service has a log and a name
    return serve.feedback.url, serve.application


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item where one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
