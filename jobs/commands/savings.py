"""`kcm savings`: how much of the bill of a log of LLM calls a small model could have saved."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from jobs.options import AssetsPath, options_of
from jobs.servers import remember
from jobs.views.savings import StatusLine, next_steps, overview, template_lines, warnings
from kcm.bundle import MANIFEST
from kcm.bundle.bundle import Bundle
from kcm.errors import ArtefactError, ConfigError, KcmError
from kcm.inputs.location import Location
from kcm.labelling.sources import openai_config
from kcm.large.adapters.openai import OpenAiConfig
from kcm.large.prices import listed_prices, price_of
from kcm.logs.savings import Savings, SavingsConfig
from kcm.logs.savings import savings as savings_of

EVERY_REQUEST = "the template has no fixed text, so a service would answer every request"


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
    """Answer how much of the bill of LOG a small model could have saved, without calling any model.

    Calls are grouped by prompt template. For each one whose answers are a classification a small model is trained on
    earlier calls and certified on later ones: with probability 1 - --delta at least a share --target of all answers to
    it would agree with the LLM's, if future calls are like these.
    """
    location = Location.of(log)
    if location.is_local and not Path(location.path).is_file():
        raise KcmError("no such file", where=log)
    folder = out or (serve.with_suffix(".bundle") if serve else None)
    _require_free(folder, serve)
    line = StatusLine()
    try:
        found = savings_of(
            log, input=input, answer=answer, ledger=ledger, assets=assets_path, progress=line.show, **promise
        )
    finally:
        line.close()
    for warning in warnings(found):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    for text in overview(found):
        typer.echo(text)
    for number, each in enumerate(found.templates, 1):
        for text in template_lines(number, each, found):
            typer.echo(text)
    if folder is None or found.no_bundle:
        folder = serve = None
    else:
        server = _server(found, llm, base_url)
        _write_bundle(found.bundle(server), folder)
        remember(server)
        serve = _write_config(found, server, serve)
    for text in next_steps(found, log, folder, serve):
        typer.echo(text)
    return found.as_json() | ({"bundle": str(folder)} if folder else {})


def _require_free(folder: Path | None, serve: Path | None) -> None:
    """Raise before the work for places that hold something else."""
    if folder is not None and folder.exists() and not (folder / MANIFEST).is_file():
        raise ArtefactError("something else lies where the bundle goes", where=str(folder), hint="Name another --out")
    if serve is not None and serve.exists():
        raise ConfigError("the file is there already", where=str(serve), hint="Name another by --serve, or delete it")


def _server(found: Savings, llm: str | None, base_url: str | None) -> OpenAiConfig:
    """The server that the bundle asks: never an address from the log, which others write."""
    model = llm or (found.best.tally.model if found.best else "")
    if not model:
        raise ConfigError("the log names no model", where="savings", hint="Name the one that a bundle asks by --llm")
    return openai_config(model, base_url)


def _write_config(found: Savings, server: OpenAiConfig, serve: Path | None) -> Path | None:
    """Write the configuration of a service; None if none is wanted, or if it would answer every request."""
    if serve is None or found.best is None:
        return None
    if not found.best.is_told_apart:
        typer.secho(f"warning: {serve} is not written: {EVERY_REQUEST}", fg=typer.colors.YELLOW, err=True)
        return None
    serve.parent.mkdir(parents=True, exist_ok=True)
    serve.write_text(serve_config(found, server), encoding="utf-8")
    return serve


def _write_bundle(bundle: Bundle, folder: Path) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as scratch:
        draft = bundle.write(Path(scratch) / folder.name)
        if folder.exists():
            folder.replace(Path(scratch) / "earlier")
        draft.replace(folder)


def serve_config(found: Savings, server: OpenAiConfig) -> str:
    """The configuration with which `kcm serve` answers requests of the best template; all others pass through."""
    assert found.best is not None
    prices = listed_prices()
    models = {name: price_of(name, prices) for each in found.templates for name in each.tally.models}
    proxy = {
        "upstream": server.base_url,
        "api_key_env": server.api_key_env,
        "template": found.best.group.template.model_dump(mode="json"),
        "prices": {name: list(price) for name, price in models.items() if price},
    }
    head = "# kcm serve THIS --bundle DIR: requests of the template are answered here, all others pass through.\n"
    return head + yaml.safe_dump({"serve": {"proxy": proxy}}, sort_keys=False, allow_unicode=True)
