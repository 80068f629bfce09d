"""`kcm log`: what the log of a served cascade holds, the log as a file, and deletion from it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.exit import reported
from jobs.options import ConfigFile, Debug, JsonFile, Overrides, announce
from kcm.errors import KcmError

if TYPE_CHECKING:
    from pipelines.serve.log.database import Database

TIMEOUT_S = 30.0

app = typer.Typer(
    help="What the log of a served cascade holds, the log as a file, and deletion from it.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
)


@app.command()
def stats(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """Count decisions by version and route, audits, labels, and the bytes that are kept of inputs."""
    with reported(json, debug) as result:
        announce(f"reading the log of {config}")
        from jobs.views.log import stats_view
        from jobs.views.table import result_console
        from pipelines.serve.log.reading.stats import log_stats
        from pipelines.serve.log.reading.window import LogReader

        url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            watermark = log.watermark(application)
            result |= {"watermark": watermark, "missing": log.gaps(application, 0, watermark)}
            with log.reading() as connection:
                result |= log_stats(connection, application)
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
        announce(f"reading the log of {config}")
        from pipelines.serve.log.reading.export import export as write_log
        from pipelines.serve.log.reading.window import LogReader

        url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            end = log.watermark(application) if upto is None else min(upto, log.watermark(application))
            number = write_log(log, application, output, after, end)
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

    Their units leave the memory of the model with the next `kcm update`; the result says who still holds them.
    """
    with reported(json, debug) as result:
        announce(f"reading the log of {config}")
        from pipelines.serve.log.forgetting import forget_caller, forget_request

        if (caller is None) == (request is None):
            raise KcmError("name whose items are to be forgotten", hint="Give either --caller or --request")
        url, application = _log_of(config, overrides)
        with _written(url) as database:
            if caller is not None:
                forgotten, what = forget_caller(database, application, caller), f"caller {caller!r}"
            else:
                request_id, item = _parsed(str(request))
                forgotten, what = forget_request(database, application, request_id, item), f"request {request!r}"
        if not forgotten.num_items:
            raise KcmError(
                f"the log holds nothing of {what}, or has forgotten it",
                where=application,
                hint="What was answered just now is in the log a second later",
            )
        result |= {"items": forgotten.num_items, "units": sorted(forgotten.units)}
        typer.echo(f"{forgotten.num_items} items of {what} are forgotten")
        result |= _told_of_holders(config, overrides, url, forgotten.units)


@app.command()
def purge(config: ConfigFile, overrides: Overrides = None, json: JsonFile = None, debug: Debug = False) -> None:
    """Remove what was forgotten from the artefacts of earlier versions, once the champion was trained without it.

    They can be served, but no update goes on from them.
    """
    with reported(json, debug) as result:
        announce(f"reading the log of {config}")
        from kcm.config import load_config
        from pipelines.config import RunConfig
        from pipelines.loop.purging import purge as purge_artefacts
        from pipelines.loop.state import LoopState
        from pipelines.serve.log.reading.window import LogReader

        url, application = _log_of(config, overrides)
        with LogReader(url) as log:
            key, units = log.unit_key, log.forgotten(application)
        found = purge_artefacts(LoopState.of(load_config(RunConfig, config, overrides or [])), key, units)
        result |= {"units": len(units), "emptied": found.emptied, "windows": found.windows}
        counted = f"{len(found.emptied)} artefacts are emptied, {len(found.windows)} windows erased"
        typer.echo(f"{len(units)} forgotten units: {counted}")


def _told_of_holders(
    config: Path, overrides: list[str] | None, url: str, units: frozenset[str]
) -> dict[str, list[str]]:
    """Say which versions and which artefacts of the storage still hold these units, and what to do."""
    from kcm.config import load_config
    from pipelines.config import RunConfig
    from pipelines.loop.purging import remembered
    from pipelines.loop.state import LoopState
    from pipelines.serve.log.reading.window import LogReader

    with LogReader(url) as log:
        key = log.unit_key
    found = remembered(LoopState.of(load_config(RunConfig, config, overrides or [])), key, units)
    if found.versions:
        learned = ", ".join(found.versions)
        typer.echo(
            f"learned by {learned}: the next `kcm update` trains without them; `kcm log purge` empties what is older"
        )
    if found.unreadable:
        typer.echo(f"not known of {', '.join(found.unreadable)}: the artefacts that they were made of are gone")
    for folder in found.folders:
        typer.echo(f"rows are kept in {folder}")
    return {
        "versions": list(found.versions),
        "unreadable": list(found.unreadable),
        "folders": [str(folder) for folder in found.folders],
    }


def _log_of(config: Path, overrides: list[str] | None) -> tuple[str, str]:
    """The URL of the log of a run's service, and the application whose decisions they are."""
    from jobs.commands.serving.serving import Site
    from kcm.config import load_config
    from pipelines.config import RunConfig

    serve = Site.of(load_config(RunConfig, config, overrides or [])).serve
    assert serve.feedback.url is not None  # a site has a log and a name
    assert serve.application is not None
    return serve.feedback.url, serve.application


@contextmanager
def _written(url: str) -> Iterator[Database]:
    from pipelines.serve.log.database import Database, LogUnavailableError
    from pipelines.serve.log.reading.window import require_log

    require_log(url)
    database = Database(url, TIMEOUT_S)
    try:
        yield database
    except LogUnavailableError as error:
        hint = "Call it again: what is forgotten by now stays so"
        raise KcmError(f"the log cannot be written: {error}", where=url, hint=hint) from error
    finally:
        database.close()


def _parsed(request: str) -> tuple[str, int | None]:
    """The id of a request, and the position of an item where one is named."""
    request_id, slash, item = request.rpartition("/")
    return (request_id, int(item)) if slash and item.isdecimal() else (request, None)
