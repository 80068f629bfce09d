"""`kcm log`: what the log of a served cascade holds, the log as a file, and deletion from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import CommandGroup, Run
from kcm.errors import KcmError

if TYPE_CHECKING:
    from pipelines.config import RunConfig

TIMEOUT_S = 30.0

app = CommandGroup("What the log of a served cascade holds, the log as a file, and deletion from it.")


@app.add
def stats(config: Run) -> dict[str, Any]:
    """Count decisions by version and route, audits, labels and bytes of inputs; show the evidence of drift."""
    from jobs.views.loop import stats_view
    from jobs.views.table import result_console
    from pipelines.serve.log.window import LogReader

    with LogReader(*_log_of(config)) as log:
        watermark = log.watermark()
        result = {"watermark": watermark, "missing": log.gaps(0, watermark)} | log.stats()
        result["drift"] = {version: log.drift(version) for version in result["versions"]}
    result_console().print(stats_view(result))
    return result


@app.add
def export(
    config: Run,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file, which is replaced.")],
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin behind this decision.")] = 0,
    upto: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="End with this one; default: the last.")
    ] = None,
) -> dict[str, Any]:
    """Write the decisions as Parquet, a row for each, with all that is known of it by now."""
    from pipelines.serve.log.window import LogReader

    url, application = _log_of(config)
    with LogReader(url, application) as log:
        end = log.watermark() if upto is None else min(upto, log.watermark())
        number = log.export(output, after, end)
    typer.echo(str(output))
    return {"application": application, "decisions": number, "after": after, "upto": end, "file": str(output)}


@app.add
def forget(
    config: Run,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Forget all of this caller's items.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID[/ITEM]", help="Forget the items of a request, or one of them.")
    ] = None,
) -> dict[str, Any]:
    """Delete inputs, answers and labels for good; what stays of a decision is its route and its probability.

    Their units leave the memory of the model with the next `kcm update`.
    """
    if (caller is None) == (request is None):
        raise KcmError("name whose items are to be forgotten", hint="Give either --caller or --request")
    from pipelines.serve.log.database import require_log
    from pipelines.serve.log.decisions import DecisionLog

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


@app.add
def purge(config: Run) -> dict[str, Any]:
    """Remove what was forgotten from the artefacts of earlier versions, once the champion was trained without it.

    They can be served, but no update goes on from them.
    """
    from pipelines.loop.purging import purge as purge_artefacts
    from pipelines.loop.state import LoopState
    from pipelines.serve.log.window import LogReader

    with LogReader(*_log_of(config)) as log:
        key, units = log.unit_key, log.forgotten()
    purged = purge_artefacts(LoopState.of(config), key, units)
    counted = f"{len(purged.emptied)} artefacts are emptied, {len(purged.windows)} windows erased"
    typer.echo(f"{len(units)} forgotten units: {counted}")
    return {"units": len(units), "emptied": purged.emptied, "windows": purged.windows}


def _log_of(config: RunConfig) -> tuple[str, str]:
    """The URL of the log of a run's service, and the application whose decisions they are."""
    from jobs.settings import ServiceSettings

    serve: Any = ServiceSettings.of(config).serve  # a service has a log and a name
    return serve.feedback.url, serve.application


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item where one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
