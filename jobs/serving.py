"""Serving: which bundle, on which cluster, until somebody stops it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from ray.serve import Application

from kcm.bundle import Bundle
from kcm.config import Config, parse_config
from kcm.errors import KcmError
from pipelines.cluster import ClusterConfig, connected
from pipelines.config import RunConfig
from pipelines.serve.app import build_app, start, stop
from pipelines.serve.config import ServeConfig
from pipelines.tracking import CHAMPION, SQLITE, fetch_model


class Site(Config):
    """Where and how a bundle is served."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Path("assets")

    @classmethod
    def of(cls, config: RunConfig) -> Site:
        """What a run's configuration says about it."""
        return cls(serve=config.serve, cluster=config.cluster, assets_path=config.assets_path)


@dataclass(frozen=True)
class Served:
    """A bundle to serve, and the version that clients are told."""

    bundle: Path
    version: str


def served_folder(bundle: Path) -> Served:
    """A bundle in a folder; its version is the start of its digest. ArtefactError where there is none."""
    return Served(bundle, Bundle.read(bundle).digest[:12])


def served_model(config: RunConfig, model: str | None) -> Served:
    """A registered model by NAME@ALIAS or NAME/VERSION, without one the champion of the run; downloaded once.

    An alias is resolved here, so that all replicas load the same version whatever becomes of the alias.
    """
    uri = config.tracking.uri_in(config.storage_path)
    asked = model or f"{config.tracking.model_of(config.name)}@{CHAMPION}"
    version = _resolved(uri, asked)
    folder = config.storage_path / "served" / version
    if not folder.exists():
        os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".") as draft:  # so that it appears whole or not
            fetch_model(uri, version, Path(draft)).replace(folder)
    return Served(folder, version)


def _resolved(uri: str, model: str) -> str:
    """NAME/VERSION."""
    name, at, alias = model.partition("@")
    if not at:
        return model
    database = Path(uri.removeprefix(SQLITE))
    try:
        if uri.startswith(SQLITE) and not database.exists():  # which a client would create
            raise MlflowException("no runs are recorded here")
        return f"{name}/{MlflowClient(uri).get_model_version_by_alias(name, alias).version}"
    except MlflowException as error:
        mend = "Register one by `kcm run`, or name one by --model or --bundle"
        raise KcmError(f"no registered model {model!r}", where=uri, mend=mend) from error


@contextmanager
def serving(served: Served, site: Site) -> Iterator[str]:
    """The URL of the cascade, which is ready, for as long as the block runs."""
    with connected(site.cluster):
        app = build_app(served.bundle, site.serve, site.assets_path, served.version)
        try:
            yield start(app, site.serve)
        finally:
            stop()


class AppConfig(Config):
    """What `application` is told; its paths lie on storage that every node sees."""

    bundle: Path
    assets_path: Path
    serve: ServeConfig = ServeConfig()


def application(arguments: dict[str, Any]) -> Application:
    """Ray Serve's entry point for deployments by file, as by KubeRay: `import_path: jobs.serving:application`."""
    config = parse_config(AppConfig, arguments, where="args of the application")
    served = served_folder(config.bundle)
    return build_app(served.bundle, config.serve, config.assets_path, served.version)


def wait_for_interruption() -> None:
    """Return once somebody presses Ctrl-C."""
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
