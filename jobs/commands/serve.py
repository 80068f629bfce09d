"""`kcm serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import Overrides
from kcm.config import read_values
from kcm.errors import KcmError
from kcm.extras import load


def serve(
    config: Annotated[
        Path | None,
        typer.Argument(
            metavar="[CONFIG]",
            help="The run's YAML file; with --bundle or --model optional, and only its service sections count.",
        ),
    ] = None,
    bundle: Annotated[Path | None, typer.Option(metavar="DIR", help="Serve the bundle in this folder.")] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME@ALIAS", help="Serve a registered model, also NAME/VERSION, with or without models:/."
        ),
    ] = None,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the file for `serve deploy` on a cluster, and start nothing."),
    ] = None,
    overrides: Overrides = None,
) -> dict[str, Any]:
    """Serve a model over HTTP until Ctrl-C.

    The model is the current champion of CONFIG, or --bundle or --model.
    """
    if overrides and config is None:
        raise KcmError("--set needs CONFIG")
    values = read_values(config, overrides or ()) if config else None
    return load("jobs.work.service:serve_until_interrupted", "kcm serve")(values, str(config), bundle, model, build)
