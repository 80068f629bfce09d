"""The work of `kcm route`: fit a router on a table of logged answers, and certify a threshold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from rich.console import Console, Group

from jobs.views.table import line, result_console
from kcm.report.formats import percent
from kcm.report.reading import routed
from kcm.report.summary import decision, headline, measured, promise, recommendation
from kcm.routing.config import RequestConfig
from kcm.routing.frame import RoutingFrame


def fit_router(
    table: Path,
    columns: dict[str, Any],
    encoder: str | None,
    assets: Path,
    seed: int,
    output: Path,
) -> dict[str, Any]:
    """Fit a router on the rows of `table`, write it to the folder `output`, and return the JSON result."""
    with Console(stderr=True).status("reading the table") as status:

        def progress(step: str, count: int, total: int) -> None:
            status.update(f"{step}: {count:,} of {total:,}")

        frame = RoutingFrame.open(table, columns, encoder, assets, progress=progress)
        result = frame.fit(seed, output)
    typer.echo(f"router fitted on {result['num_rows']:,} {result['split']} rows: {output}")
    return result


def certify_table(
    table: Path,
    columns: dict[str, Any],
    router: Path | None,
    assets: Path,
    request: RequestConfig,
    ledger: Path | None,
) -> dict[str, Any]:
    """Certify a threshold on the rows of `table`, print the certificate, and return the JSON result."""
    frame = RoutingFrame.open(table, columns, None, assets, router)
    if ledger:
        typer.echo(frame.next_look(request, ledger).sentence, err=True)
    result = frame.certify(request, ledger)
    result["recommendation"] = recommendation(routed(result), frame.certificate_path(request, result))
    for warning in result["warnings"]:
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    result_console().print(certificate_view(result))
    return result


def certificate_view(result: Mapping[str, Any]) -> Group:
    """What the deployed decision saves, what is guaranteed of it, and what to do next."""
    run = routed(result)
    lines = [
        line("result", headline(run)),
        line("measured", measured(run)),
        line("guarantee", f"{promise(result)}."),
        line("next", result["recommendation"]),
        line("decision", f"{decision(result)}: {result['reason']}"),
        line("call rate", f"{percent(result['call_rate'])} of {result['num_rows']:,} certify rows"),
    ]
    return Group(*lines, *(line("note", note) for note in result["notes"]))
