"""`kcm serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import Overrides, values_of
from kcm.errors import KcmError


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
    """Serve a model over HTTP until Ctrl-C: the current champion of CONFIG, or --bundle or --model."""
    if overrides and config is None:
        raise KcmError("--set needs CONFIG")
    values = values_of(config, overrides) if config else None
    from jobs import service  # torch and Ray, once the file could be read
    from pipelines.serve.deploy.app import void_release

    run, service_settings = (None, None) if values is None else service.configured(values, str(config))
    source, release, settings = service.prepared(run, bundle, model, service_settings)
    result: dict[str, Any] = {"version": release.version}
    if void := void_release(release, settings.serve):
        result["void"] = void
        typer.echo(f"the certificate of {release.version} is void here: {void}", err=True)
    if build:
        service.write_deployment(build, source, settings)
        typer.echo(str(build))
        return result
    typer.echo(service.loading_message(release), err=True)
    with service.serving(source, settings) as url:
        result["url"] = url
        typer.echo(f"{release.version} answers at {url}/v1/predict, described at {url}/docs; Ctrl-C stops it")
        if proxy := settings.serve.proxy:
            typer.echo(f"clients of {proxy.upstream} set their base_url to {url}/v1; other requests pass through")
        service.wait_for_interruption()
    return result
