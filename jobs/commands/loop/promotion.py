"""Promotion: another registered version becomes the champion, and the running service changes to it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import ray

from jobs.commands.serving.serving import Site
from jobs.commands.serving.start import service_folder
from jobs.models import served_model
from kcm.bundle.bundle import Bundle
from kcm.errors import KcmError
from pipelines.cluster.authentication import LocalCluster, find_cluster, settings
from pipelines.cluster.connection import join, prepare_environment
from pipelines.config import RunConfig
from pipelines.loop.promotion.canary import roll_out
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.loop.turn import Delivery
from pipelines.registry.champion import By
from pipelines.registry.promote import champion_now, promoting
from pipelines.serve.config import log_url
from pipelines.serve.deploy.app import require_servable
from pipelines.serve.deploy.deployment import (
    RunningService,
    change_release,
    current_release,
    is_running,
    write_down,
)
from pipelines.serve.log.trial import TrialLog
from pipelines.serve.release import Release
from pipelines.serve.runtimes import void_release
from pipelines.tracking.config import DIGEST_TAG
from pipelines.tracking.tracking import FINGERPRINT_TAG, PARENT_TAG, version_tags


def promote(config: RunConfig, version: str, *, by: By = "promote") -> dict[str, Any]:
    """Serve a registered version, if anything is served, and then make it the champion.

    `version` is a number, or NAME/NUMBER. Raises KcmError, with the champion and what is served as they were, for a
    version that is not registered, cannot be served, or is refused by a replica.
    """
    state = LoopState.of(config)
    champions = state.champions
    name, _, number = version.rpartition("/")
    if name and name != champions.model:
        raise KcmError(
            f"{version!r} is a version of another model", where=champions.uri, hint=f"Name one of {champions.model!r}"
        )
    release = served_model(config, f"{champions.model}/{number}")
    require_servable(release, Site.of(config).serve, config.assets_path)
    with promoting(state.store.control, config.name):
        before = champions.pointer.current()
        served = change_served(config, release)
        tags = version_tags(champions.uri, champions.model, number)
        champion = champion_now(
            release.version,
            tags[DIGEST_TAG],
            tags[FINGERPRINT_TAG],
            by=by,
            after=watermark_of(config),
            parent=tags.get(PARENT_TAG),
        )
        champions.promote(champion, expected=before.number if before else 0)
    return {"version": release.version, "served": served}


def rollback(config: RunConfig, version: str | None = None, reason: str = "rolled back by hand") -> dict[str, Any]:
    """Go back to an earlier champion, by default the one before, and never promote today's by itself again.

    Raises KcmError, with nothing changed, where there is none, or where `promote` would.
    """
    state = LoopState.of(config)
    pointer = state.champions.pointer
    current = pointer.current()
    if current is None:
        raise KcmError(f"{config.name!r} has no champion to roll back", hint="Start `kcm run` first")
    today = current.champion
    earlier = [
        each for each in pointer.history() if each.digest != today.digest and pointer.rejected(each.digest) is None
    ]
    if version is None and not earlier:
        raise KcmError(
            f"{today.version} has had no other champion before it that was not rolled back", hint="Name a VERSION"
        )
    result = promote(config, version or earlier[-1].version, by="rollback")
    if result["version"] != today.version:
        pointer.reject(today.digest, reason)
    return result | {"rolled_back": today.version, "reason": reason} | state.write()


def rollback_if_refuted(config: RunConfig) -> dict[str, Any] | None:
    """Go back from a champion that an update has promoted, where its own traffic refutes its certificate.

    None where there is nothing to go back from. A version that a person promoted stays: the service has acted upon the
    alarm by itself, see `serve.on_refuted`.
    """
    current = LoopState.of(config).champions.pointer.current()
    if current is None or current.champion.by != "update" or not watermark_of(config):
        return None
    with log_reader(config) as log:
        if log.alarm(config.application, current.champion.version) is None:
            return None
    return rollback(config, reason="its certificate was refuted by its own traffic")


def delivered(config: RunConfig, version: str) -> Delivery:
    """Bring a registered version through shadow and canary in the running service; nothing where none runs.

    One whose certificate would be void there is not tried out: it would escalate everything.
    """
    release = served_model(config, version)
    site = Site.of(config)
    require_servable(release, site.serve, config.assets_path)
    with running_cluster(config) as connected:
        if not (connected and is_running()) or (current := current_release()) is None:
            return Delivery(served=False)
        if void := void_release(release, site.serve):
            return Delivery(served=True, stopped=f"its certificate would be void in the service: {void}")
        assert config.update is not None
        certificate = Bundle.read(release.bundle).certificates.get(None)
        log = TrialLog(log_url(site.serve, config.storage_folder), site.serve.application or config.name)
        try:
            outcome = roll_out(
                current.champion,
                release,
                config.update.canary,
                service=RunningService(config.serve.load_timeout_s, partial(write_down, config.serve)),
                log=log,
                epsilon=certificate.epsilon if certificate else config.certificate.epsilon,
                label_free=certificate is not None and certificate.method == "traffic",
            )
        finally:
            log.close()
    stages = [stage.model_dump(mode="json") for stage in outcome.stages]
    return Delivery(served=True, stopped=None if outcome.promoted else outcome.reason, stages=stages)


def change_served(config: RunConfig, release: Release) -> bool:
    """Let the running service answer with a release; False where none runs."""
    with running_cluster(config) as connected:
        if served := connected and is_running():
            change_release(
                release, timeout_s=config.serve.load_timeout_s, written_down=partial(write_down, config.serve)
            )
    return served


@contextmanager
def running_cluster(config: RunConfig) -> Iterator[bool]:
    """Whether a cluster runs; connected to it within the block. None is started.

    It is the configured one, else the one that `kcm serve` started for this run.
    """
    if ray.is_initialized():
        yield True
        return
    prepare_environment()
    named = config.cluster.address or os.environ.get("RAY_ADDRESS")
    local = None if named else find_cluster(service_folder(config.storage_folder, config.name))
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
