"""The work of the loop's commands: update, watch, approve, versions, promote and rollback."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jobs.models import served_model
from jobs.settings import ServiceSettings
from jobs.views.loop import outcome
from kcm.errors import DataError, KcmError, LockedError
from pipelines.config import RunConfig
from pipelines.loop.label_file import read_labels
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.loop.triggers import NewTraffic
from pipelines.loop.triggers import watch as watch_log
from pipelines.loop.turn import approve as approve_version
from pipelines.loop.turn import update as take_turn
from pipelines.loop.window.naming import ClassNames
from pipelines.progress import Reporter
from pipelines.registry.champion import By, Champion, Current, LeftVersion, ReplacedError
from pipelines.registry.promote import WAITS, promoting
from pipelines.serve.deploy.app import require_servable, void_release
from pipelines.serve.log.database import LogUnavailableError
from pipelines.stages.parent import Parent
from pipelines.store.files import StorageError
from pipelines.tracking.config import DIGEST_TAG
from pipelines.tracking.tracking import FINGERPRINT_TAG, PARENT_TAG, version_tags

TEMPORARY = (LockedError, LogUnavailableError, StorageError, OSError)  # errors that end without anybody's help


def update(config: RunConfig, labels: Path | None = None) -> dict[str, Any]:
    """Take one turn of the loop now; with a file of `labels`, certify the last turn's challenger again."""
    return take_turn(config, partial(objection, config), labels=None if labels is None else read_labels(labels))


def name_classes(config: RunConfig, file: Path) -> dict[str, Any]:
    """Write the list of labels to a new file, or read an edited one."""
    state, names = LoopState.of(config), ClassNames.of(config)
    known = Parent.of(state.store, state.champions.present().champion).bundle.answer_names
    if is_new := not file.exists():
        turns = state.attempts.turns()
        names.write(file, known, turns[-1].get("labels_unknown", {}) if turns else {})
    else:
        names.read(file, known)
    return {"named": list(names.labels()), "file": str(file), "written": is_new}


def watch(config: RunConfig, say: Callable[[str], None]) -> None:
    """Take a turn whenever one is due, until interrupted; what a later turn may repair is reported, and it continues.

    If traffic refutes a champion that an update promoted, the champion is rolled back first. Raises ConfigError for a
    configuration without updates.
    """
    settings = config.require_update()

    def attempt(reason: str) -> None:
        say(f"starting an attempt: {reason}")
        try:
            say(outcome(update(config)))
        except (DataError, ReplacedError, *TEMPORARY) as error:
            say(str(error))

    def look() -> NewTraffic:
        try:
            if (rollback := rollback_if_refuted(config)) is not None:
                say(f"{rollback['rolled_back']} is rolled back to {rollback['version']}: {rollback['reason']}")
            return NewTraffic.of(config)
        except (ReplacedError, *TEMPORARY) as error:
            say(str(error))
            return NewTraffic()

    watch_log(look, attempt, settings.every_s, clock=time.monotonic, sleep=time.sleep)


def approve(config: RunConfig, version: str) -> dict[str, Any]:
    """Promote a version that waits for approval."""
    return approve_version(config, version, partial(objection, config))


def versions(config: RunConfig) -> dict[str, Any]:
    """All champions and challengers, the newest first.

    `state` is champion, former champion, stopped, awaits approval, or challenger. Raises KcmError for a run without a
    champion.
    """
    state = LoopState.of(config)
    pointer = state.champions.pointer
    current = state.champions.write_alias()
    turns = {turn["digest"]: turn for turn in state.attempts.turns() if turn["digest"]}
    history = {champion.digest: champion for champion in pointer.history()}
    version_list = state.versions()
    states = list[dict[str, Any]]()
    for digest, version in version_list.items():
        turn, champion, rejection = turns.get(digest, {}), history.get(digest), pointer.rejected(digest)
        states.append(
            {
                "version": version,
                "state": "champion"
                if digest == current.champion.digest
                else "stopped"
                if rejection
                else "awaits approval"
                if turn.get("awaits_approval") and turn["champion_digest"] == current.champion.digest
                else "former champion"
                if champion
                else "challenger",
                "by": champion and champion.by,
                "parent": version_list.get((champion.parent if champion else turn["champion_digest"]) or ""),
                "promoted_at": champion and champion.promoted_at,
                "window": [turn["after"], turn["upto"]] if turn else None,
                "verdict": turn.get("verdict"),
                "certificate": turn.get("certificate"),
                "reason": turn.get("reason") if digest == current.champion.digest else rejection or turn.get("reason"),
            }
        )
    newest = sorted(states, key=lambda state: int(state["version"].rpartition("/")[2]), reverse=True)
    return {"champion": current.champion.version, "versions": newest, "rolled_back": state.rolled_back()}


def promote(
    config: RunConfig,
    version: str,
    *,
    by: By = "promote",
    instead_of: int | None = None,
    left: LeftVersion | None = None,
) -> dict[str, Any]:
    """Make a registered version the champion; a running service follows.

    `version` is a number, or NAME/NUMBER. `left` is the version that a rollback leaves. Raises ReplacedError unless it
    replaces champion number `instead_of`, if that is given; KcmError for a version that is not registered, cannot be
    served, or is refused by a replica. Nothing changes then.
    """
    state = LoopState.of(config)
    champions = state.champions
    name, _, number = version.rpartition("/")
    if name and name != champions.model:
        raise KcmError(
            f"{version!r} belongs to another model", where=champions.uri, hint=f"Name a version of {champions.model!r}"
        )
    release = served_model(config, f"{champions.model}/{number}")
    require_servable(release, ServiceSettings.of(config).serve, config.assets_path)
    tags = version_tags(champions.uri, champions.model, number)
    Reporter().say(WAITS)
    with promoting(state.store.control, config.name):
        before = champions.pointer.current() if instead_of is None else champions.pointer.require(instead_of)
        champion = Champion(
            version=release.version,
            digest=tags[DIGEST_TAG],
            bundle=tags[FINGERPRINT_TAG],
            by=by,
            after=watermark_of(config),
            parent=tags.get(PARENT_TAG),
            left=left,
        )
        expected = before.number if before else 0
        served = champions.promote(champion, expected=expected)
    return {"version": release.version, "served": served}


def rollback(
    config: RunConfig,
    version: str | None = None,
    reason: str = "rolled back by hand",
    *,
    current: Current | None = None,
) -> dict[str, Any]:
    """Go back from `current`, by default today's champion, to an earlier one, by default the previous one.

    The current one is never promoted automatically again. A rollback that was killed after its swap is finished first,
    instead of going back twice. Raises KcmError, and changes nothing, without an earlier champion, or if `promote`
    would raise.
    """
    state = LoopState.of(config)
    pointer = state.champions.pointer
    current = current or state.champions.present()
    today = current.champion
    if version is None and today.left and not pointer.is_rollback_finished(current):  # a rollback was killed
        version = today.version
    stays = version is not None and version.rpartition("/")[2] == today.number
    left = today.left if stays else LeftVersion(digest=today.digest, reason=reason)
    earlier = [
        champion
        for champion in pointer.history()
        if champion.digest != today.digest and pointer.rejected(champion.digest) is None
    ]
    if version is None and not earlier:
        raise KcmError(
            f"no champion before {today.version} is left: all others were rolled back", hint="Name a VERSION"
        )
    result = promote(config, version or earlier[-1].version, by="rollback", instead_of=current.number, left=left)
    rolled_back = state.versions()[left.digest] if left else today.version
    return result | {"rolled_back": rolled_back, "reason": left.reason if left else reason} | state.write()


def rollback_if_refuted(config: RunConfig) -> dict[str, Any] | None:
    """Roll back a champion that an update promoted, if its own traffic refutes its certificate.

    None if there is nothing to roll back. A version that a person promoted stays: the service itself reacts to the
    alarm, see `serve.on_refuted`.
    """
    current = LoopState.of(config).champions.pointer.current()
    if current is None or current.champion.by != "update" or not watermark_of(config):
        return None
    with log_reader(config) as log:
        if log.alarm(current.champion.version) is None:
            return None
    return rollback(config, reason="its certificate was refuted by its own traffic", current=current)


def objection(config: RunConfig, candidate: Champion) -> str | None:
    """Why a running service must not serve a registered version; None without a service.

    A version that is not certified on the service's runtime would escalate everything there. Raises the errors of
    `require_servable`.
    """
    release, settings = served_model(config, candidate.version), ServiceSettings.of(config)
    require_servable(release, settings.serve, config.assets_path)
    if not LoopState.of(config).champions.pointer.reports.any_alive():
        return None
    void = void_release(release, settings.serve)
    return f"it is not certified on the service's runtime: {void}" if void else None
