"""`kcm log`: counts of the log of a served cascade, its export to a file, and deletion from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.options import CommandGroup, Run
from kcm.errors import KcmError

if TYPE_CHECKING:
    from pipelines.config import RunConfig

TIMEOUT_S = 30.0

app = CommandGroup("Show, export and delete entries of a served cascade's log.")


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
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin after this decision.")] = 0,
    upto: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="End with this one; default: the last.")
    ] = None,
) -> dict[str, Any]:
    """Write the decisions as Parquet, one row each, with all outcomes so far."""
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
    """Delete inputs, answers and labels permanently; only a decision's route and probability stay.

    The next `kcm update` removes their units from the model's memory.
    """
    if (caller is None) == (request is None):
        raise KcmError("missing --caller or --request: the items to forget", hint="Give either --caller or --request")
    from pipelines.serve.log.database import require_log
    from pipelines.serve.log.decisions import DecisionLog

    url, application = _log_of(config)
    require_log(url)
    subject = f"caller {caller!r}" if caller is not None else f"request {request!r}"
    with DecisionLog(url, TIMEOUT_S, application) as log:
        counts = log.forget_request(*_parsed(str(request))) if caller is None else log.forget_caller(caller)
    if not counts.num_items:
        raise KcmError(
            f"the log has no items of {subject}, or they are already forgotten",
            where=application,
            hint="New answers appear in the log after a second",
        )
    typer.echo(f"forgot {counts.num_items} items of {subject}")
    typer.echo("`kcm update` trains without them; then `kcm log purge` removes them from earlier versions")
    return {"items": counts.num_items, "units": sorted(counts.units)}


@app.add
def purge(config: Run) -> dict[str, Any]:
    """Remove forgotten items from the artefacts of earlier versions, once the champion was trained without them.

    Earlier versions can still be served, but no update can start from them.
    """
    from pipelines.loop.purging import purge as purge_artefacts
    from pipelines.loop.state import LoopState
    from pipelines.serve.log.window import LogReader

    with LogReader(*_log_of(config)) as log:
        key, units = log.unit_key, log.forgotten()
    purged = purge_artefacts(LoopState.of(config), key, units)
    summary = f"emptied {len(purged.emptied)} artefacts, erased {len(purged.windows)} windows"
    typer.echo(f"{len(units)} forgotten units: {summary}")
    return {"units": len(units), "emptied": purged.emptied, "windows": purged.windows}


def _log_of(config: RunConfig) -> tuple[str, str]:
    """The URL of the log of a run's service, and the application's name in it."""
    from jobs.settings import ServiceSettings

    serve: Any = ServiceSettings.of(config).serve  # a service has a log and a name
    return serve.feedback.url, serve.application


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item if one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
