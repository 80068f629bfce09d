"""`kcm savings`: how much of the bill of a log of LLM calls a small model could have saved."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import AssetsPath, located, options_of, require_free
from kcm.errors import ConfigError
from kcm.extras import load
from kcm.logs.config import SavingsConfig


@options_of(SavingsConfig, "promise")
def savings(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG",
            help="OpenAI requests, a LiteLLM spend log, a Langfuse export, OpenTelemetry spans, or any table.",
        ),
    ],
    promise: dict[str, Any],
    input: Annotated[str | None, typer.Option(metavar="COLUMN", help="Column of a table with the inputs.")] = None,
    answer: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Column of a table with the LLM's answers.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write the bundle of the template that saves most.")
    ] = None,
    serve: Annotated[
        Path | None,
        typer.Option(
            metavar="CONFIG.yaml", help="Write what `kcm serve` needs to answer the same requests, and the bundle."
        ),
    ] = None,
    llm: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Model that the bundle asks, if the log names none.")
    ] = None,
    base_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Server of the LLM, up to before /chat/completions.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Ledger of looks. Default: one for the user.")
    ] = None,
    assets_path: AssetsPath = Path("assets"),
) -> dict[str, Any]:
    """Estimate how much of an LLM bill a small model saves.

    No model is called. Calls are grouped by prompt template. For each one whose answers are a classification a small
    model is trained on earlier calls and certified on later ones: with probability 1 - --delta at least a share
    --target of all answers to it would agree with the LLM's, if future calls are like these.
    """
    located(log)
    folder = out or (serve.with_suffix(".bundle") if serve else None)
    if folder is not None:
        require_free(folder, "--out")
    if serve is not None and serve.exists():
        raise ConfigError("the file is there already", where=str(serve), hint="Name another by --serve, or delete it")
    options = {"input": input, "answer": answer, "ledger": ledger, "assets": assets_path} | promise
    return load("jobs.work.savings:savings_log", "kcm savings")(
        log, options, folder=folder, serve=serve, model=llm, base_url=base_url
    )
