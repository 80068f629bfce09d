"""One turn of the loop: learn the traffic since the last promotion, certify, apply the gates, perhaps promote.

The champion, the log's watermark and the configuration name an attempt. Each of its steps is an artefact, so a killed
turn resumes. In every case the champion changes through one compare-and-swap of its pointer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from rich.markup import escape

from kcm.errors import DataError, KcmError
from pipelines.config import OPERATIONAL, PLACES, RunConfig
from pipelines.loop import build
from pipelines.loop.attempts import UpdateAttempt, fingerprint_of
from pipelines.loop.build import BuiltChallenger
from pipelines.loop.state import LoopState, watermark_of, window_start
from pipelines.loop.window.naming import ClassNames
from pipelines.progress import Reporter
from pipelines.registry.champion import Champion, ReplacedError, utc_now
from pipelines.registry.gates import overall
from pipelines.registry.promote import WAITS, promoting
from pipelines.registry.replicas import SILENT_S, RefusedByServiceError
from pipelines.store.artefact import storage_errors
from pipelines.store.lease import leased

_PASSED = "every promotion gate has passed"
_PROMOTED = {"promoted": True, "awaits_approval": False, "reason": _PASSED}


# Why a registered version must not be served, if there is a reason.
Objection = Callable[[Champion], str | None]


def no_objection(candidate: Champion) -> str | None:
    """The objection if no service runs."""
    return None


def update(
    config: RunConfig,
    objection: Objection = no_objection,
    reporter: Reporter | None = None,
    labels: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Take one turn and return its outcome; `loop.json`, at `result_path`, lists all turns.

    `labels` of people, by item, certify the challenger of the last turn again, see `EvaluateTraffic`.

    Raises LockedError naming the process that is already taking a turn of this run, ConfigError for a configuration
    without updates, DataError for a window from which nothing may be learned or certified. After an error the champion
    is unchanged.
    """
    config.require_update()
    reporter = reporter or Reporter()
    started = time.monotonic()
    state = LoopState.of(config)
    control, subject = state.store.control, f"the update of {config.name!r}"
    with storage_errors(state.store.root), leased(control, f"leases/loop/{config.name}", subject):
        current = state.champions.write_alias()
        if (killed := state.attempts.unrecorded(current.champion)) is not None:
            return {"changed": True} | _closed(state, killed, _PROMOTED) | state.write()
        watermark = watermark_of(config)
        attempt = _due(config, state, watermark, labels)
        if attempt is None:
            reason = f"nothing is new in the log since decision {watermark}"
            return {"changed": False, "reason": reason, "champion": current.champion.version} | state.write()
        state.attempts.open(attempt)
        reporter.say(f"[bold]attempt[/bold]   {attempt.name}: decisions {attempt.after + 1} to {attempt.upto}")
        try:
            challenger = build.build_challenger(config, state, attempt, labels or {}, reporter)
            for gate in challenger.gates:
                reporter.say(f"[bold]{gate.name:<11}[/bold] {gate.verdict}: {escape(gate.reason)}")
            turn = _record(attempt, challenger) | {"seconds": round(time.monotonic() - started, 1)}
            state.attempts.prepare(attempt.name, turn)
            turn |= _outcome(config, state, attempt, challenger, objection, reporter)
        except (DataError, ReplacedError) as error:
            state.attempts.refuse(attempt.name, str(error))
            raise
        timed = {"attempt": attempt.name, "seconds": round(time.monotonic() - started, 1)}
        return {"changed": True} | _closed(state, turn, timed) | state.write()


def approve(config: RunConfig, version: str, objection: Objection = no_objection) -> dict[str, Any]:
    """Promote a version that waits for approval.

    Raises KcmError for a version that does not wait: it is not from the last turn, failed a gate, or was rolled back.
    """
    state = LoopState.of(config)
    number = version.rpartition("/")[2]
    current, pointer = state.champions.write_alias().champion, state.champions.pointer
    waiting = [
        turn
        for turn in state.attempts.turns()
        if turn.get("awaits_approval") and turn["champion_digest"] == current.digest
        if turn["version"].rpartition("/")[2] == number and not pointer.rejected(turn["digest"])
    ]
    if not waiting:
        hint = "`kcm versions` lists all versions with their states"
        raise KcmError(f"version {number} does not wait for approval", where=config.name, hint=hint)
    turn = waiting[-1]
    candidate = Champion.model_validate(turn["candidate"])
    promoted = _promote(config, state, candidate, {current.digest}, turn["upto"], objection, Reporter())
    _closed(state, turn, promoted)
    return {"version": turn["version"]} | promoted | state.write()


def _closed(state: LoopState, turn: dict[str, Any], outcome: dict[str, Any]) -> dict[str, Any]:
    """The turn with its outcome, which is recorded."""
    turn = turn | outcome
    state.attempts.close(turn["attempt"], {name: value for name, value in turn.items() if name != "attempt"})
    return turn


def _due(config: RunConfig, state: LoopState, watermark: int, labels: Mapping[str, str] | None) -> UpdateAttempt | None:
    """The attempt that labels or new decisions call for; None if nothing is new."""
    configuration = _configuration(config)
    if labels:
        return state.attempts.relabelled(fingerprint_of(dict(labels)), configuration)
    champion = state.champions.present().champion
    return state.attempts.due(champion, window_start(config, champion), watermark, configuration)


def _record(attempt: UpdateAttempt, challenger: BuiltChallenger) -> dict[str, Any]:
    """A turn whose challenger has not been promoted."""
    candidate, reasons = challenger.candidate, [gate.reason for gate in challenger.gates if gate.verdict != "pass"]
    return {
        "version": candidate.version if candidate else None,
        "digest": candidate.digest if candidate else None,
        "candidate": candidate.model_dump(mode="json") if candidate else None,
        "champion_digest": attempt.champion,
        "configuration": attempt.configuration,
        "relabelled": attempt.labels is not None,
        "after": attempt.after,
        "upto": attempt.upto,
        "promoted": False,
        "awaits_approval": False,
        "verdict": overall(challenger.gates),
        "reason": "; ".join(reasons) or _PASSED,
        "gates": {gate.name: gate.model_dump(mode="json", exclude={"name"}) for gate in challenger.gates},
    } | challenger.figures


def _outcome(
    config: RunConfig,
    state: LoopState,
    attempt: UpdateAttempt,
    challenger: BuiltChallenger,
    objection: Objection,
    reporter: Reporter,
) -> dict[str, Any]:
    """The part of a turn's record that changes when its challenger is promoted or held back."""
    candidate, verdict = challenger.candidate, overall(challenger.gates)
    if candidate is None or verdict == "fail":
        return {}
    if reason := state.champions.pointer.rejected(candidate.digest, upto=attempt.upto):
        return {"reason": f"it, or another from this window, was stopped before: {reason}"}
    if verdict == "undecided":
        return {"awaits_approval": True}
    if config.require_update().approval == "manual":
        return {"awaits_approval": True, "reason": "update.approval is manual"}
    after = {attempt.champion}
    if attempt.labels is not None:  # a relabelled challenger may follow itself, under a stricter threshold
        after.add(state.attempts.turns()[-1]["digest"])
    return _promote(config, state, candidate, after, attempt.upto, objection, reporter)


def _promote(
    config: RunConfig,
    state: LoopState,
    candidate: Champion,
    after: set[str],
    upto: int,
    objection: Objection,
    reporter: Reporter,
) -> dict[str, Any]:
    """Make a challenger the champion, unless there is an objection or a replica refuses it.

    `after` holds the digests of the champions that it may follow.
    """
    champions = state.champions
    current = champions.present()
    if current.champion.digest == candidate.digest:
        return dict(_PROMOTED)
    if current.champion.digest not in after:
        raise ReplacedError(
            f"{current.champion.version} became the champion while {candidate.version} was being trained",
            where=config.name,
            hint="Start `kcm update` again: it starts from the new champion",
        )
    reporter.say(f"promotion: looks for replicas of a service, at most {SILENT_S:.0f} s")
    if (stop_reason := objection(candidate)) is None:
        reporter.say(WAITS)
        try:
            with promoting(state.store.control, config.name):
                renewed = {"promoted_at": utc_now(), "after": watermark_of(config), "by": "update"}
                champion = candidate.model_copy(update=renewed)
                served = champions.promote(champion, expected=current.number)
            return _PROMOTED | {"served": served}
        except RefusedByServiceError as error:
            stop_reason = str(error)
    champions.pointer.reject(candidate.digest, stop_reason, upto=upto)
    return {"promoted": False, "awaits_approval": False, "reason": f"stopped by the service: {stop_reason}"}


def _configuration(config: RunConfig) -> str:
    """The fingerprint of everything that determines what an attempt learns and must prove."""
    when = {"approval", "every_s"}
    return fingerprint_of(
        config.model_dump(mode="json", exclude={*OPERATIONAL, *PLACES})
        | {
            "update": config.require_update().model_dump(mode="json", exclude=when),
            "labels": ClassNames.of(config).labels(),
        }
    )
