"""Promotion and rollback by hand, and the trial of a challenger in the running service: changes of the pointer."""

from __future__ import annotations

from typing import Any

from jobs.commands.serving.service import ServiceSettings
from jobs.models import served_model
from kcm.bundle.bundle import Bundle
from kcm.errors import KcmError
from pipelines.config import RunConfig
from pipelines.loop.promotion.canary import PointerTrial, Rollout
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.loop.turn import Delivery
from pipelines.registry.champion import By, Challenger, Champion
from pipelines.registry.promote import champion_now, promoting
from pipelines.serve.config import log_url
from pipelines.serve.deploy.app import require_servable, void_release
from pipelines.serve.log.trial import TrialLog
from pipelines.tracking.config import DIGEST_TAG
from pipelines.tracking.tracking import FINGERPRINT_TAG, PARENT_TAG, version_tags


def promote(config: RunConfig, version: str, *, by: By = "promote") -> dict[str, Any]:
    """Make a registered version the champion, which the running service follows, if one runs.

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
    require_servable(release, ServiceSettings.of(config).serve, config.assets_path)
    tags = version_tags(champions.uri, champions.model, number)
    with promoting(state.store.control, config.name):
        before = champions.pointer.current()
        champion = champion_now(
            release.version,
            tags[DIGEST_TAG],
            tags[FINGERPRINT_TAG],
            by=by,
            after=watermark_of(config),
            parent=tags.get(PARENT_TAG),
        )
        expected = before.number if before else 0
        served = champions.promote(champion, expected=expected, timeout_s=config.serve.load_timeout_s)
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
        champion
        for champion in pointer.history()
        if champion.digest != today.digest and pointer.rejected(champion.digest) is None
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


def delivered(config: RunConfig, candidate: Champion) -> Delivery:
    """Bring a registered version through shadow and canary in the running service; nothing where none runs.

    One whose certificate would be void there is not tried out: it would escalate everything.
    """
    pointer = LoopState.of(config).champions.pointer
    release = served_model(config, candidate.version)
    settings = ServiceSettings.of(config)
    require_servable(release, settings.serve, config.assets_path)
    current = pointer.current()
    if current is None or not pointer.reports.any_alive():
        return Delivery(served=False)
    if void := void_release(release, settings.serve):
        return Delivery(served=True, stopped=f"its certificate would be void in the service: {void}")
    assert config.update is not None
    certificate = Bundle.read(release.bundle).certificates.get(None)
    challenger = Challenger(digest=candidate.digest, version=candidate.version, bundle=candidate.bundle)
    log = TrialLog(log_url(settings.serve, config.storage_folder), config.application)
    try:
        outcome = Rollout(
            current.champion.version,
            candidate.version,
            config.update.canary,
            PointerTrial(pointer, challenger, config.serve.load_timeout_s),
            log,
            epsilon=certificate.epsilon if certificate else config.certificate.epsilon,
            label_free=certificate is not None and certificate.method == "traffic",
        ).run()
    finally:
        log.close()
    stages = [stage.model_dump(mode="json") for stage in outcome.stages]
    return Delivery(served=True, stopped=None if outcome.passed else outcome.reason, stages=stages)
