"""`kcm route`: route between two models from a table of their logged answers, without training either."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import AssetsPath, CommandGroup, options_of
from jobs.views.route import certificate_view, progress_bars
from jobs.views.table import result_console
from kcm.config import parse_config
from kcm.errors import KcmError
from kcm.report.page import ReportInputs, write_report
from kcm.report.reading import routed
from kcm.report.words import recommendation
from kcm.routing.config import RequestConfig, RouteColumns
from kcm.routing.frame import RoutingFrame

app = CommandGroup("Route between two models from a table of their logged answers, without training either.")

TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Logged answers as .csv, .tsv or .parquet.")]
ColumnsFile = Annotated[
    Path | None, typer.Option("--columns", metavar="FILE", help="YAML file with the column names; options win over it.")
]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Encoder of the texts, or none; default: MiniLM where `kcm assets` put it."),
]
RouterFolder = Annotated[
    Path | None,
    typer.Option(
        "--router",
        metavar="DIR",
        help="Score rows with the router that `kcm route fit` wrote; its columns are known, an empty name unsets one.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Draws splits where the table names none.")]


@app.add
@options_of(RouteColumns, "columns")
def fit(
    table: TableFile,
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the router.")],
    columns: dict[str, Any],
    columns_file: ColumnsFile = None,
    encoder: Encoder = None,
    assets_path: AssetsPath = Path("assets"),
    seed: Seed = 0,
) -> dict[str, Any]:
    """Fit a router on the train rows of TABLE, or on its validate rows, and write it as safetensors and JSON.

    Rows it was fitted on keep their out-of-fold scores: they may choose a threshold, and may not certify.
    """
    with progress_bars() as progress:
        frame = RoutingFrame.open(table, columns_file, columns, encoder, assets_path, progress=progress)
        result = frame.fit(seed, output)
    typer.echo(f"a router fitted on {result['num_rows']:,} {result['split']} rows: {output}")
    return result


LedgerFile = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Count looks here: all looks at tables that share rows spend one delta, the first 80% of it. "
        "Default: the look is not recorded, and the promise holds only for a first look.",
    ),
]


@app.add
@options_of(RequestConfig, "request")
@options_of(RouteColumns, "columns")
def certify(
    table: TableFile,
    columns: dict[str, Any],
    request: dict[str, Any],
    columns_file: ColumnsFile = None,
    router: RouterFolder = None,
    ledger: LedgerFile = None,
    currency: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Unit of the cost columns, such as USD: savings are then said in money."),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write frontier, certificate, reliability and metrics as one HTML file."),
    ] = None,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Certify the lowest threshold that loses at most --epsilon, with probability 1 - --delta.

    The JSON holds `decision` (threshold, keep_all or escalate_all), `threshold` (null but for the first; keep what
    scores above it), `call_rate` on the certify rows, `bound` on the accuracy lost, and `valid`: whether every promise
    that was asked for holds for the decision. Escalating all loses nothing, so valid is false only where
    --max-call-rate cannot be kept. Without a split column all rows certify. With --router, --max-loss, --mode net or
    --epsilon 0, which need rows to choose on, rows are drawn: 40% validate, 40% certify, 20% test.
    """
    asked = parse_config(RequestConfig, request, where="options")
    frame = RoutingFrame.open(table, columns_file, columns, None, assets_path, router)
    if ledger:
        typer.echo(frame.next_look(asked, ledger).sentence, err=True)
    result = frame.certify(asked, ledger)
    if currency and result["mean_costs"] is None:
        raise KcmError(
            "--currency names the unit of costs, but none are known on test rows", hint="Give --large-cost COLUMN"
        )
    result["costs"] = result["mean_costs"] | {"currency": currency} if currency else None
    path = frame.certificate_path(asked, result)
    result["recommendation"] = recommendation(routed(result, {}), path)
    if report:
        _write_report(report, table.name, frame, asked, result, path)
    for warning in result["warnings"]:
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    result_console().print(certificate_view(result))
    if report:
        typer.echo(str(report))
    return result


def _write_report(
    file: Path, name: str, frame: RoutingFrame, asked: RequestConfig, found: dict[str, Any], path: dict[str, Any]
) -> None:
    curves = frame.curves(asked)
    inputs = ReportInputs(
        result=routed(found, curves["quality"]) | {"name": name},
        frontiers={"kcm": curves["frontier"]},
        reliability={"kcm": curves["reliability"]},
        certificate_path=path,
        columns=frame.columns.named,
        machine=f"{platform.system()} {platform.machine()}",
    )
    write_report(inputs, file)
