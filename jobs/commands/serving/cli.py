"""`kcm serve`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.exit import reported
from jobs.options import BundleFolder, Debug, JsonFile, ModelName, Overrides, announce
from kcm.errors import KcmError

if TYPE_CHECKING:
    from jobs.commands.serving.serving import Site
    from pipelines.serve.release import Release


def serve(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG]", help="The run's YAML file; --bundle and --model can do without it."),
    ] = None,
    bundle: BundleFolder = None,
    model: ModelName = None,
    build: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the file that `serve deploy` takes on a cluster, and start nothing."),
    ] = None,
    overrides: Overrides = None,
    json: JsonFile = None,
    debug: Debug = False,
) -> None:
    """Serve a model over HTTP until Ctrl-C; the champion of CONFIG, unless --bundle or --model names another."""
    with reported(json, debug) as result:
        if bundle and model:
            raise KcmError("--bundle and --model name two models", hint="Give one of them")
        if config is None and (overrides or not (bundle or model)):
            hint = "Only --bundle DIR or --model NAME@ALIAS without --set can do without it"
            raise KcmError("CONFIG is missing", hint=hint)
        announce(f"looking for {bundle or model or f'the champion of {config}'}")

        def prepare() -> tuple[Release, Site]:
            from jobs.commands.serving.serving import Site
            from jobs.models import served_folder, served_model
            from kcm.config import load_config
            from pipelines.served_run import ServedRun

            loaded = load_config(ServedRun, config, overrides or []) if config else None
            release = served_folder(bundle) if bundle else served_model(loaded, model)
            site = Site.of(loaded) if loaded else Site().with_feedback_in(bundle.parent if bundle else Path())
            result["version"] = release.version
            from pipelines.serve.deploy.app import require_servable  # takes its time, and the model is known by now
            from pipelines.serve.runtimes import void_release

            require_servable(release, site.serve, site.assets_path)
            if void := void_release(release, site.serve):
                result["void"] = void
                typer.echo(f"the certificate of {release.version} is void here: {void}", err=True)
            return release, site

        if build:
            from jobs.commands.serving.serving import write_deployment

            write_deployment(build, *prepare())
            typer.echo(str(build))
            return
        from jobs.commands.serving.start import cluster_beside

        with cluster_beside(config, overrides or (), bundle, prepare) as (release, site):
            from jobs.commands.serving.serving import loads, serving, wait_for_interruption

            typer.echo(loads(release), err=True)
            with serving(release, site) as url:
                result["url"] = url
                typer.echo(f"{release.version} answers at {url}/v1/predict, described at {url}/docs; Ctrl-C stops it")
                wait_for_interruption()
