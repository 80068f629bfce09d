"""`kcm log`: what the log of a served cascade holds, the log as a file, and deletion from it."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, command_group, load
from jobs.service import ServiceSettings
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

app = command_group("What the log of a served cascade holds, the log as a file, and deletion from it.")


@app.command()
def stats(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """Count decisions by version and route, audits, labels and bytes of inputs; show the evidence of drift."""
    with reported(json, debug) as result:
        _, url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            watermark = log.watermark(application)
            result |= {"watermark": watermark, "missing": log.gaps(application, 0, watermark)}
            result |= log.stats(application)
            result["drift"] = {version: log.drift(application, version) for version in result["versions"]}
        result_console().print(stats_view(result))


@app.command()
def export(
    config: ConfigFile,
    output: Annotated[Path, typer.Option(metavar="FILE", help="The Parquet file, which is replaced.")],
    after: Annotated[int, typer.Option(min=0, metavar="NUMBER", help="Begin behind this decision.")] = 0,
    upto: Annotated[
        int | None, typer.Option(min=0, metavar="NUMBER", help="End with this one; default: the last.")
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Write the decisions as Parquet, a row for each, with all that is known of it by now."""
    with reported(json, debug) as result:
        _, url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            end = log.watermark(application) if upto is None else min(upto, log.watermark(application))
            number = log.export(application, output, after, end)
        result |= {"application": application, "decisions": number, "after": after, "upto": end, "file": str(output)}
        typer.echo(str(output))


@app.command()
def forget(
    config: ConfigFile,
    caller: Annotated[str | None, typer.Option(metavar="NAME", help="Forget all of this caller's items.")] = None,
    request: Annotated[
        str | None, typer.Option(metavar="ID[/ITEM]", help="Forget the items of a request, or one of them.")
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Delete inputs, answers and labels for good; what stays of a decision is its route and its probability.

    Their units leave the memory of the model with the next `kcm update`.
    """
    with reported(json, debug) as result:
        if (caller is None) == (request is None):
            raise KcmError("name whose items are to be forgotten", hint="Give either --caller or --request")
        _, url, application = _log_of(config, overrides)
        require_log(url)
        what = f"caller {caller!r}" if caller is not None else f"request {request!r}"
        with closing(DecisionLog(url, TIMEOUT_S, application)) as log:
            forgotten = log.forget_request(*_parsed(str(request))) if caller is None else log.forget_caller(caller)
        if not forgotten.num_items:
            raise KcmError(
                f"the log holds nothing of {what}, or has forgotten it",
                where=application,
                hint="What was answered just now is in the log a second later",
            )
        result |= {"items": forgotten.num_items, "units": sorted(forgotten.units)}
        typer.echo(f"{forgotten.num_items} items of {what} are forgotten")
        typer.echo("the next `kcm update` trains without them; then `kcm log purge` empties what earlier versions keep")


@app.command()
def purge(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """Remove what was forgotten from the artefacts of earlier versions, once the champion was trained without it.

    They can be served, but no update goes on from them.
    """
    with reported(json, debug) as result:
        run, url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            key, units = log.unit_key, log.forgotten(application)
        purged = purge_artefacts(LoopState.of(run), key, units)
        result |= {"units": len(units), "emptied": purged.emptied, "windows": purged.windows}
        counted = f"{len(purged.emptied)} artefacts are emptied, {len(purged.windows)} windows erased"
        typer.echo(f"{len(units)} forgotten units: {counted}")


def _log_of(config: Path, overrides: list[str] | None) -> tuple[RunConfig, str, str]:
    """A run, the URL of the log of its service, and the application whose decisions they are."""

    run = load(config, overrides)
    serve: Any = ServiceSettings.of(run).serve  # a service has a log and a name
    return run, serve.feedback.url, serve.application


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item where one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
