"""`kcm route`: route between two models from their logged answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import AssetsPath, CommandGroup, located, options_of
from kcm.config import parse_config
from kcm.routing.config import RequestConfig, RouteColumns

app = CommandGroup("Route between two models from their logged answers.")

TableFile = Annotated[Path, typer.Argument(metavar="TABLE", help="Logged answers: .csv, .tsv or .parquet.")]
Encoder = Annotated[
    str | None,
    typer.Option(metavar="MODEL", help="Encoder of the texts, or none. Default: MiniLM from `kcm assets`."),
]
RouterFolder = Annotated[
    Path | None,
    typer.Option(
        "--router",
        metavar="DIR",
        help="Score rows with a router from `kcm route fit`; it knows its columns, an empty name unsets one.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the splits, if the table has none.")]


@app.add
@options_of(RouteColumns, "columns")
def fit(
    table: TableFile,
    output: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for the router.")],
    columns: dict[str, Any],
    encoder: Encoder = None,
    assets_path: AssetsPath = Path("assets"),
    seed: Seed = 0,
) -> dict[str, Any]:
    """Fit a router on the train or validate rows of TABLE.

    It is written as safetensors and JSON. Fitted rows keep out-of-fold scores: they may choose a threshold, but may not
    certify.
    """
    located(str(table))
    from jobs.work.route import fit_router  # torch

    return fit_router(table, columns, encoder, assets_path, seed, output)


LedgerFile = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Ledger of looks: all looks at tables that share rows spend one delta, the first look 80% of it. "
        "Default: nothing is recorded, and the promise holds only for a first look.",
    ),
]


@app.add
@options_of(RequestConfig, "request")
@options_of(RouteColumns, "columns")
def certify(
    table: TableFile,
    columns: dict[str, Any],
    request: dict[str, Any],
    router: RouterFolder = None,
    ledger: LedgerFile = None,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Certify the lowest threshold that loses at most --epsilon.

    The probability is 1 - --delta. The JSON holds `decision` (threshold, keep_all or escalate_all), `threshold` (keep
    scores above it; null for other decisions), `call_rate` on the certify rows, and `bound` on the accuracy lost.
    Without a split column all rows certify. --router, --max-loss, --mode net and --epsilon 0 need rows to choose on:
    then rows are drawn, 40% validate, 40% certify, 20% test.
    """
    request_config = parse_config(RequestConfig, request, where="options")
    located(str(table))
    from jobs.work.route import certify_table  # torch

    return certify_table(table, columns, router, assets_path, request_config, ledger)
