"""Serving: which bundle, on which cluster, until somebody stops it."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from kcm.bundle.bundle import Bundle
from kcm.config import Config
from kcm.errors import KcmError
from pipelines.cluster import ClusterConfig, connected
from pipelines.config import RunConfig
from pipelines.serve.deploy.app import prepare_environment, require_servable, stop
from pipelines.serve.deploy.config import ServeConfig
from pipelines.serve.deploy.deployment import deploy, deployment_file
from pipelines.serve.deploy.release import Release
from pipelines.tracking import CHAMPION, SQLITE, fetch_model


class Site(Config):
    """Where and how a bundle is served."""

    serve: ServeConfig = ServeConfig()
    cluster: ClusterConfig = ClusterConfig()
    assets_path: Path = Path("assets")

    @classmethod
    def of(cls, config: RunConfig) -> Site:
        """What a run's configuration says about it."""
        site = cls(serve=config.serve, cluster=config.cluster, assets_path=config.assets_path)
        return site.keeping_feedback_in(config.storage_path)

    def keeping_feedback_in(self, folder: Path) -> Site:
        """The same, with a feedback log in this folder where no other is configured."""
        feedback = self.serve.feedback
        if feedback.url is not None:
            return self
        url = f"sqlite:///{folder.absolute() / 'feedback.db'}"
        serve = self.serve.model_copy(update={"feedback": feedback.model_copy(update={"url": url})})
        return self.model_copy(update={"serve": serve})


def served_folder(bundle: Path) -> Release:
    """A bundle in a folder; its version is the start of its digest. ArtefactError where there is none."""
    return Release(version=Bundle.read(bundle).digest[:12], bundle=bundle.absolute())


def served_model(config: RunConfig, model: str | None) -> Release:
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
    return Release(version=version, bundle=folder)


def _resolved(uri: str, model: str) -> str:
    """NAME/VERSION."""
    name, at, alias = model.partition("@")
    database = Path(uri.removeprefix(SQLITE))
    try:
        if uri.startswith(SQLITE) and not database.exists():  # which a client would create
            raise MlflowException("no runs are recorded here")
        if not at:
            return model
        return f"{name}/{MlflowClient(uri).get_model_version_by_alias(name, alias).version}"
    except MlflowException as error:
        mend = "Register one by `kcm run`, or name one by --model or --bundle"
        raise KcmError(f"no registered model {model!r}", where=uri, mend=mend) from error


@contextmanager
def serving(release: Release, site: Site) -> Iterator[str]:
    """The URL of the cascade, which is ready, for as long as the block runs."""
    prepare_environment()
    with connected(site.cluster):
        url = deploy(release, site.serve, site.assets_path)
        try:
            yield url
        finally:
            stop()


def write_deployment(file: Path, release: Release, site: Site) -> None:
    """Write what `serve deploy` takes. Raises ArtefactError for a bundle that cannot be served, before anything."""
    require_servable(release, site.serve, site.assets_path)
    content = yaml.safe_dump(deployment_file(release, site.serve, site.assets_path), sort_keys=False)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
    except OSError as error:
        raise KcmError(f"cannot write the deployment: {error.strerror}", where=str(file)) from error


def wait_for_interruption() -> None:
    """Return once somebody presses Ctrl-C."""
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
