"""Promotion: another registered version becomes the champion, and the running service changes to it."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
from mlflow import MlflowClient

from jobs.serving import served_model
from kcm.errors import KcmError
from pipelines.cluster import prepare_environment
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
    require_servable(release, config.serve, config.assets_path)
    with _running_cluster(config) as connected:
        served = connected and is_running()
        if served:
            change_version(release, timeout_s=config.serve.load_timeout_s)
    client = MlflowClient(config.tracking.uri_in(config.storage_path))
    client.set_registered_model_alias(name, CHAMPION, number)
    return {"version": release.version, "served": served}


@contextmanager
def _running_cluster(config: RunConfig) -> Iterator[bool]:
    """Whether there is a cluster, connected to for as long as the block runs. None is started for this."""
    if ray.is_initialized():
        yield True
        return
    prepare_environment()
    named = config.cluster.address or os.environ.get("RAY_ADDRESS")
    try:
        ray.init(address=named or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        if named:
            raise KcmError(
                f"no Ray cluster answers: {error}", where=named, mend="Start it, or drop the address"
            ) from error
        yield False
        return
    try:
        yield True
    finally:
        ray.shutdown()
