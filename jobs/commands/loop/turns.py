"""The loop's commands: a turn, a watch, an approval, and what is known of all versions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from jobs.commands.loop.promotion import delivered, rollback_if_refuted
from jobs.views.loop import outcome
from kcm.config import Config
from kcm.errors import DataError, KcmError, LockedError
from pipelines.config import RunConfig
from pipelines.loop.state import LoopState, log_reader, watermark_of
from pipelines.loop.triggers import NewTraffic
from pipelines.loop.triggers import watch as watch_log
from pipelines.loop.turn import Deliver
from pipelines.loop.turn import approve as approve_version
from pipelines.loop.turn import update as take_turn

RECENT = 1000  # the last decisions, by which the traffic of a version is measured


class VersionState(Config):
    """A version of an application as `kcm versions` shows it."""

    version: str
    state: str  # champion, former champion, stopped, awaits approval, or challenger
    by: str | None
    parent: str | None
    promoted_at: str | None
    traffic: float | None  # its share of the last decisions; None where nothing is logged
    window: tuple[int, int] | None
    verdict: str | None
    certificate: dict[str, Any] | None
    reason: str | None


def update(config: RunConfig) -> dict[str, Any]:
    """Take one turn of the loop now."""
    return take_turn(config, _to_traffic(config))


def watch(config: RunConfig, say: Callable[[str], None]) -> None:
    """Take a turn whenever one is due, until interrupted; a refused turn is reported, and the watch goes on.

    A champion that an update has promoted and its traffic refutes is rolled back first.
    """
    assert config.update is not None or update(config) is not None  # which says what is missing
    settings = config.update
    assert settings is not None

    def attempt(reason: str) -> None:
        say(f"an attempt starts: {reason}")
        try:
            say(outcome(update(config)))
        except (DataError, LockedError) as error:
            say(str(error))

    def look() -> NewTraffic:
        if (done := rollback_if_refuted(config)) is not None:
            say(f"{done['rolled_back']} is rolled back to {done['version']}: {done['reason']}")
        return NewTraffic.of(config)

    watch_log(look, attempt, settings, clock=time.monotonic, sleep=time.sleep)


def approve(config: RunConfig, version: str) -> dict[str, Any]:
    """Promote a version that waits for approval."""
    return approve_version(config, version, _to_traffic(config))


def _to_traffic(config: RunConfig) -> Deliver:
    """How a version comes to answer traffic."""
    return lambda candidate: delivered(config, candidate)


def versions(config: RunConfig) -> dict[str, Any]:
    """All versions that were champion or wanted to be, the newest first, and the traffic that the champion has seen.

    Raises KcmError for a run without a champion.
    """
    state = LoopState.of(config)
    pointer = state.champions.pointer
    current = pointer.current()
    if current is None:
        raise KcmError(f"{config.name!r} has no champion", hint="Start `kcm run` first")
    turns = {turn["digest"]: turn for turn in state.attempts.turns() if turn["digest"]}
    history = {champion.digest: champion for champion in pointer.history()}
    known = {digest: champion.version for digest, champion in history.items()}
    known |= {digest: turn["version"] for digest, turn in turns.items()}
    shares = _shares(config)
    states = []
    for digest, version in known.items():
        turn, champion, stopped = turns.get(digest, {}), history.get(digest), pointer.rejected(digest)
        states.append(
            VersionState(
                version=version,
                state="champion"
                if digest == current.champion.digest
                else "stopped"
                if stopped
                else "awaits approval"
                if turn.get("awaits_approval") and turn["champion_digest"] == current.champion.digest
                else "former champion"
                if champion
                else "challenger",
                by=champion and champion.by,
                parent=known.get((champion.parent if champion else turn["champion_digest"]) or ""),
                promoted_at=champion and champion.promoted_at,
                traffic=shares.get(version, 0.0) if shares else None,
                window=(turn["after"], turn["upto"]) if turn else None,
                verdict=turn.get("verdict"),
                certificate=turn.get("certificate"),
                reason=turn.get("reason") if digest == current.champion.digest else stopped or turn.get("reason"),
            )
        )
    newest = sorted(states, key=lambda state: int(state.version.rpartition("/")[2]), reverse=True)
    return {
        "champion": current.champion.version,
        "versions": [version.model_dump(mode="json") for version in newest],
        "rolled_back": state.rolled_back(),
    }


def _shares(config: RunConfig) -> dict[str, float]:
    """What each version answered of the last `RECENT` decisions; nothing where nothing was served."""
    if not watermark_of(config):
        return {}
    with log_reader(config) as log:
        return log.shares(config.application, RECENT)
