"""What `kcm serve` does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from jobs.work import service
from pipelines.serve.deploy.app import void_release


def serve(
    values: Mapping[str, Any] | None, where: str, bundle: Path | None, model: str | None, build: Path | None
) -> dict[str, Any]:
    """Serve a configuration (`values` of the file `where`), a bundle or a model until Ctrl-C; or write `build`."""
    run, service_settings = (None, None) if values is None else service.configured(values, where)
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
