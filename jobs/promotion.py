"""Promotion: another registered version becomes the champion, and the running service changes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import ray
from mlflow import MlflowClient

from jobs.serving import Site, served_model, service_folder
from kcm.errors import KcmError
from pipelines.authentication import LocalCluster, find_cluster, settings
from pipelines.cluster import join, prepare_environment
from pipelines.config import RunConfig
from pipelines.serve.deploy.app import require_servable
from pipelines.serve.deploy.deployment import change_version, is_running
from pipelines.tracking import CHAMPION


def promote(config: RunConfig, version: str) -> dict[str, Any]:
    """Serve a registered version, if anything is served, and then name it the champion.

    `version` is a number, or NAME/NUMBER. An older one is a rollback. Raises KcmError, with the champion and what is
    served as they were, for a version that is not registered, cannot be served, or is refused by a replica.
    """
    name, _, number = version.rpartition("/")
    name = name or config.tracking.model_of(config.name)
    release = served_model(config, f"{name}/{number}")
    require_servable(release, Site.of(config).serve, config.assets_path)
    with _running_cluster(config) as connected:
        served = connected and is_running()
        if served:
            change_version(release, timeout_s=config.serve.load_timeout_s)
    client = MlflowClient(config.tracking.uri_in(config.storage_path))
    client.set_registered_model_alias(name, CHAMPION, number)
    return {"version": release.version, "served": served}


@contextmanager
def _running_cluster(config: RunConfig) -> Iterator[bool]:
    """Whether a cluster runs; connected to it within the block. None is started.

    It is the configured one, else the one that `kcm serve` started for this run.
    """
    if ray.is_initialized():
        yield True
        return
    prepare_environment()
    named = config.cluster.address or os.environ.get("RAY_ADDRESS")
    local = None if named else find_cluster(service_folder(config))
    with ExitStack() as stack:
        if named:
            join(named)
        elif local is None or not stack.enter_context(_joined(local)):
            yield False
            return
        stack.callback(ray.shutdown)
        yield True


@contextmanager
def _joined(local: LocalCluster) -> Iterator[bool]:
    """Whether the service's cluster could be joined; the address of a killed service may be stale."""
    with settings(local.authentication):
        try:
            join(local.address)
        except KcmError:
            yield False
            return
        yield True
