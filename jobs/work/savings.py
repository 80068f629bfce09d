"""The job of `kcm savings`: a log is read, the answer printed, and what answers the same requests is written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
import yaml
from rich.console import Console

from jobs.servers import remember
from jobs.views.savings import next_steps, overview, template_lines, warnings
from kcm.errors import ConfigError
from kcm.large.adapters.openai import OpenAiConfig, openai_config
from kcm.large.prices import listed_prices, price_of
from kcm.logs.savings import Savings
from kcm.logs.savings import savings as savings_of

SHOWN_EVERY = 5_000
EVERY_REQUEST = "the template has no fixed text, so a service would answer every request"


def savings_log(
    log: str,
    options: Mapping[str, Any],
    *,
    folder: Path | None,
    serve: Path | None,
    model: str | None,
    base_url: str | None,
) -> dict[str, Any]:
    """Print the answer for `log`, write the bundle and the configuration, and return the JSON result.

    `options` are those of `kcm.savings`. The bundle goes to `folder` and the configuration to `serve`; None: it is not
    written. The bundle asks `model` at `base_url`; None: the model of the log, at OpenAI.
    """
    with Console(stderr=True).status("reading the log") as status:

        def show(step: str, count: int) -> None:
            if count % SHOWN_EVERY == 0 or count < 5:  # of calls, or of a few templates
                status.update(f"{step}: {count:,}")

        savings = savings_of(log, progress=show, **options)
    for warning in warnings(savings):
        typer.secho(f"warning: {warning}", fg=typer.colors.YELLOW, err=True)
    for text in overview(savings):
        typer.echo(text)
    for number, template in enumerate(savings.templates, 1):
        for text in template_lines(number, template, savings):
            typer.echo(text)
    config = None
    if folder is not None and savings.no_bundle:
        fault = f"warning: {serve or folder} is not written: {savings.no_bundle}"
        typer.secho(fault, fg=typer.colors.YELLOW, err=True)
        folder = None
    if folder is not None:
        server = _server(savings, model, base_url)
        savings.bundle(server).replace(folder)
        remember(server)
        config = _write_config(savings, server, serve)
    for text in next_steps(savings, log, folder, config):
        typer.echo(text)
    return savings.as_json() | ({"bundle": str(folder)} if folder else {})


def _server(savings: Savings, llm: str | None, base_url: str | None) -> OpenAiConfig:
    """The server that the bundle asks: never an address from the log, which others write."""
    model = llm or (savings.best.tally.model if savings.best else "")
    if not model:
        raise ConfigError("the log names no model", where="savings", hint="Name the one that a bundle asks by --llm")
    return openai_config(model, base_url)


def _write_config(savings: Savings, server: OpenAiConfig, serve: Path | None) -> Path | None:
    """Write the configuration of a service; None if none is wanted, or if it would answer every request."""
    if serve is None or savings.best is None:
        return None
    if not savings.best.is_told_apart:
        typer.secho(f"warning: {serve} is not written: {EVERY_REQUEST}", fg=typer.colors.YELLOW, err=True)
        return None
    serve.parent.mkdir(parents=True, exist_ok=True)
    serve.write_text(serve_config(savings, server), encoding="utf-8")
    return serve


def serve_config(savings: Savings, server: OpenAiConfig) -> str:
    """The configuration with which `kcm serve` answers requests of the best template; all others pass through."""
    assert savings.best is not None
    prices = listed_prices()
    models = {name: price_of(name, prices) for template in savings.templates for name in template.tally.models}
    proxy = {
        "upstream": server.base_url,
        "api_key_env": server.api_key_env,
        "template": savings.best.group.template.model_dump(mode="json"),
        "prices": {name: list(price) for name, price in models.items() if price},
    }
    head = "# kcm serve THIS --bundle DIR: requests of the template are answered here, all others pass through.\n"
    return head + yaml.safe_dump({"serve": {"proxy": proxy}}, sort_keys=False, allow_unicode=True)
