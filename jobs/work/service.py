"""A service on a cluster: the file that deploys it, and running it until it is interrupted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import typer
import yaml
from ray import serve

from jobs.models import served_source
from jobs.settings import ServiceSettings
from kcm.bundle.frozen_models import NOT_CERTIFIED, FrozenModels
from kcm.config import parse_config
from kcm.errors import ConfigError, KcmError
from pipelines.cluster.config import starts_local
from pipelines.cluster.connection import connected
from pipelines.config import RunConfig
from pipelines.loop.plan import ServicePlan
from pipelines.loop.state import LoopState
from pipelines.serve.deploy.app import (
    APP_NAME,
    build_app,
    deployment_file,
    require_free_address,
    require_keys,
    require_servable,
    start,
    void_release,
)
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import ChampionSource, Source
from pipelines.stages.parent import Parent


def serve_until_interrupted(
    values: Mapping[str, Any] | None, where: str, bundle: Path | None, model: str | None, build: Path | None
) -> dict[str, Any]:
    """Serve a configuration (`values` of the file `where`), a bundle or a model until Ctrl-C; or write `build`."""
    run, service_settings = (None, None) if values is None else configured(values, where)
    source, release, settings = prepared(run, bundle, model, service_settings)
    result: dict[str, Any] = {"version": release.version}
    if void := void_release(release, settings.serve):
        result["void"] = void
        typer.echo(f"{release.version} is not certified on this runtime: {void}", err=True)
    if build:
        write_deployment(build, source, settings)
        typer.echo(str(build))
        return result
    models = FrozenModels.read_models(release.bundle)
    names = f"encoder {models.encoder.name}, large model {models.large.location}"
    promise = "" if models.certified_by else f"; {NOT_CERTIFIED}"
    typer.echo(f"loading {release.version}: {names}{promise}", err=True)
    if run and run.update and isinstance(source, ChampionSource):
        state = LoopState.of(run)
        bundle_served = Parent.of(state.store, state.champions.present().champion).bundle
        plan = ServicePlan.of(run, run.update, bundle_served, state.store.control)
        typer.echo(plan or "warning: serve.audit.share is 0, so no update can certify", err=True)
    with serving(source, settings) as url:
        result["url"] = url
        typer.echo(f"{release.version} answers at {url}/v1/predict, described at {url}/docs; Ctrl-C stops it")
        with suppress(KeyboardInterrupt):
            threading.Event().wait()
    return result


def configured(values: Mapping[str, Any], where: str) -> tuple[RunConfig | None, ServiceSettings | None]:
    """The configuration of a run, or of only a service. Raises ConfigError."""
    if values and values.keys() <= ServiceSettings.model_fields.keys():
        return None, parse_config(ServiceSettings, values, where=where)
    return parse_config(RunConfig, values, where=where), None


def prepared(
    config: RunConfig | None, bundle: Path | None, model: str | None, own: ServiceSettings | None = None
) -> tuple[Source, Release, ServiceSettings]:
    """The source, its first release and the settings: for the champion of a run, a bundle or a registered model.

    `own` holds the settings of a bundle or a model without a run. ConfigError if the model is not clear; raises the
    errors of `require_servable`.
    """
    if bundle and model:
        raise ConfigError("--bundle and --model name two models", hint="Give only one")
    if not (config or bundle or model):
        if own:
            raise ConfigError("the file names no model: it has only sections of a service", hint="Add --bundle DIR")
        raise ConfigError("nothing to serve", hint="Give CONFIG, --bundle DIR or --model NAME@ALIAS")
    source = served_source(config, bundle, model)
    log_folder = bundle.parent if bundle else Path()
    settings, release = ServiceSettings.of(config, log_folder, own), source.first()
    require_servable(release, settings.serve, settings.assets_path)
    return source, release, settings


@contextmanager
def serving(source: Source, settings: ServiceSettings) -> Iterator[str]:
    """The URL of the ready cascade, which runs within the block."""
    require_keys(settings.serve)
    require_free_address(settings.serve)
    prepare_environment()
    logging.getLogger("ray.serve").setLevel(logging.WARNING)  # it logs every step
    cluster = settings.cluster.with_room_for(settings.serve.reserved_cpus)
    takes_serve_along = starts_local(cluster)
    with connected(cluster):
        url = start(build_app(source, settings.serve, settings.assets_path), settings.serve)
        try:
            yield url
        finally:
            serve.delete(APP_NAME)  # returns once the replicas have written their queues
            if not takes_serve_along:  # if the cluster ends as well, Ray would report a failed task
                serve.shutdown()


def write_deployment(file: Path, source: Source, settings: ServiceSettings) -> None:
    """Write the file for `serve deploy`.

    Raises ConfigError for a log that its replicas cannot share, before anything is written: a cluster places them on
    several machines, which would damage the file of SQLite.
    """
    config = settings.serve
    if config.num_replicas > 1 and (config.feedback.url or "").startswith("sqlite"):
        raise ConfigError(
            f"{config.num_replicas} replicas on several machines cannot write to SQLite",
            where="serve.feedback.url",
            hint="Name a PostgreSQL database, postgresql+psycopg://USER@HOST/NAME, or set serve.num_replicas to 1",
        )
    content = yaml.safe_dump(deployment_file(source, config, settings.assets_path), sort_keys=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise KcmError(f"cannot write the deployment: {error.strerror}", where=str(file)) from error
