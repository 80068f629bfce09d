"""One turn of the loop: what came in since the last promotion is learned, certified, judged, and perhaps promoted.

An attempt is named by the champion, the log's watermark and the configuration; each of its steps is an artefact, so
that a turn that was killed anywhere goes on. Whatever happens, the champion changes by one swap of its pointer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from kcm.errors import ConfigError, DataError, KcmError
from pipelines.config import RunConfig
from pipelines.loop.attempts import Attempt, configuration_fingerprint
from pipelines.loop.state import LoopState, inboxes_key, watermark_of, window_start
from pipelines.progress import Reporter
from pipelines.registry.champion import Champion
from pipelines.registry.promote import champion_now, promoting
from pipelines.store.artefact import storage_errors
from pipelines.store.control.journal import Journal
from pipelines.store.control.lease import leased

if TYPE_CHECKING:  # takes seconds to import, and a turn without work does not need it
    from pipelines.loop.certify.inbox import GivenLabels
    from pipelines.loop.challenger import BuiltChallenger
    from pipelines.registry.gates import PromotionGate, Verdict


@dataclass(frozen=True)
class Delivery:
    """How a version came to answer traffic: whether anything is served, and why it was stopped, if it was."""

    served: bool
    stopped: str | None = None
    stages: list[dict[str, Any]] = field(default_factory=list)


Deliver = Callable[[str], Delivery]  # brings a registered version, NAME/NUMBER, through shadow and canary


def nothing_served(version: str) -> Delivery:
    """The delivery where no service runs."""
    return Delivery(served=False)


def update(config: RunConfig, deliver: Deliver = nothing_served, reporter: Reporter | None = None) -> dict[str, Any]:
    """Take one turn, and give what became of it; `loop.json`, at `result_path`, tells of all turns.

    Raises LockedError naming the process that takes a turn of the same run, ConfigError for a configuration without
    updates, DataError for a window that nothing may be learned or certified from, and KcmError where somebody moved
    MLflow's alias. The champion is what it was then.
    """
    if config.update is None:
        raise ConfigError("there is no section `update`", where=config.name, hint="Add `update: {}` to the file")
    reporter = reporter or Reporter()
    started = time.monotonic()
    state = LoopState.of(config)
    control, what = state.store.control, f"the update of {config.name!r}"
    with storage_errors(state.store.root), leased(control, f"leases/loop/{config.name}", what):
        watermark, configuration = watermark_of(config), _configuration(config)
        labels = _sufficient_labels(config, state)
        seen = state.champions.present()
        nothing = {
            "changed": False,
            "reason": f"nothing is new in the log since decision {watermark}",
            "champion": seen.champion.version,
        }
        if labels is None and state.champions.pointer.is_mirrored(seen.number):  # MLflow takes seconds to be asked
            start = window_start(config, seen.champion)
            if state.attempts.due(seen.champion, start, watermark, configuration) is None:
                return nothing | state.write()
        current = state.champions.agreed().champion
        attempt = state.attempts.relabelled(_fingerprint(labels), configuration) if labels else None
        if attempt is None:
            labels = None
            attempt = state.attempts.next(current, window_start(config, current), watermark, configuration)
        if attempt is None:
            return nothing | state.write()
        reporter.say(f"[bold]attempt[/bold]   {attempt.name}: decisions {attempt.after + 1} to {attempt.upto}")
        try:
            turn = _Turn(config, state, attempt, labels, deliver, reporter).take()
        except DataError as error:
            state.attempts.refuse(attempt.name, str(error))
            raise
        turn |= {"seconds": round(time.monotonic() - started, 1)}
        state.attempts.close(attempt.name, turn)
        _withdraw_labels(config, state)
        return {"changed": True, "attempt": attempt.name} | turn | state.write()


def approve(config: RunConfig, version: str, deliver: Deliver = nothing_served) -> dict[str, Any]:
    """Promote a version that waits for approval.

    Raises KcmError for one that does not wait: it is not of the last turn, failed a gate, or was rolled back.
    """
    state = LoopState.of(config)
    number = version.rpartition("/")[2]
    waiting = [turn for turn in state.attempts.turns() if turn.get("awaits_approval")]
    found = [turn for turn in waiting if turn["version"].rpartition("/")[2] == number]
    current = state.champions.agreed().champion
    if not found or found[-1]["champion_digest"] != current.digest:
        names = [turn["version"] for turn in waiting if turn["champion_digest"] == current.digest]
        raise KcmError(
            f"version {number} does not wait for approval",
            where=config.name,
            hint=f"Waiting are {', '.join(names)}" if names else "None does; `kcm versions` tells why",
        )
    turn = found[-1]
    if reason := state.champions.pointer.rejected(turn["digest"]):
        raise KcmError(f"version {number} was stopped: {reason}", where=config.name, hint="`kcm promote` insists")
    champion = Champion.model_validate(turn["candidate"])
    promoted = _promote(config, state, champion, {current.digest}, turn["upto"], deliver)
    state.attempts.close(turn["attempt"], {k: v for k, v in turn.items() if k != "attempt"} | promoted)
    return {"version": turn["version"]} | promoted | state.write()


@dataclass(frozen=True)
class _Turn:
    """One attempt at work."""

    config: RunConfig
    state: LoopState
    attempt: Attempt
    labels: GivenLabels | None
    deliver: Deliver
    reporter: Reporter

    def take(self) -> dict[str, Any]:
        """What became of the attempt, as `loop.json` tells it."""
        from pipelines.loop.challenger import build_challenger
        from pipelines.registry.gates import overall

        built = build_challenger(self.config, self.state, self.attempt, self.labels, self.reporter)
        verdict = overall(built.gates)
        turn = self._record(built, verdict)
        for gate in built.gates:
            self.reporter.say(f"[bold]{gate.name:<11}[/bold] {gate.verdict}: {escape(gate.reason)}")
        if built.candidate is None:
            return turn
        why_not = self._held_back(built.candidate, verdict)
        if why_not is not None:
            return turn | {"promoted": False} | why_not
        return turn | _promote(
            self.config, self.state, built.candidate, self._starts_from(), self.attempt.upto, self.deliver
        )

    def _starts_from(self) -> set[str]:
        """Digests of the champions that the challenger may follow: a relabelled one follows what it was before, too."""
        if self.labels is None:
            return {self.attempt.champion}
        return {self.attempt.champion, self.state.attempts.turns()[-1]["digest"]}

    def _record(self, built: BuiltChallenger, verdict: Verdict) -> dict[str, Any]:
        candidate = built.candidate
        return {
            "version": candidate.version if candidate else None,
            "digest": candidate.digest if candidate else None,
            "candidate": candidate.model_dump(mode="json") if candidate else None,
            "champion_digest": self.attempt.champion,
            "configuration": self.attempt.configuration,
            "relabelled": self.labels is not None,
            "after": self.attempt.after,
            "upto": self.attempt.upto,
            "promoted": False,
            "awaits_approval": False,
            "verdict": verdict,
            "reason": _reason(built.gates),
            "gates": {gate.name: gate.model_dump(mode="json", exclude={"name"}) for gate in built.gates},
        } | built.figures

    def _held_back(self, candidate: Champion, verdict: Verdict) -> dict[str, Any] | None:
        """Why the challenger is not promoted by itself; None where it is."""
        settings, pointer = self.config.update, self.state.champions.pointer
        assert settings is not None
        if reason := pointer.rejected(candidate.digest, upto=self.attempt.upto):
            return {"reason": f"it, or another from this window, was stopped before: {reason}"}
        if verdict == "fail":
            return {}
        if verdict == "undecided":
            return {"awaits_approval": True}
        if settings.approval == "manual":
            return {"awaits_approval": True, "reason": "update.approval is manual"}
        return None


def _promote(
    config: RunConfig, state: LoopState, candidate: Champion, after: set[str], upto: int, deliver: Deliver
) -> dict[str, Any]:
    """Bring a challenger through shadow and canary, where a cascade is served, and make it the champion."""
    champions = state.champions
    with promoting(state.store.control, config.name):
        current = champions.agreed()
        if current.champion.digest == candidate.digest:  # and the process died before it could say so
            return {"promoted": True, "awaits_approval": False, "reason": "every promotion gate has passed"}
        if current.champion.digest not in after:
            raise KcmError(
                f"{current.champion.version} became the champion while {candidate.version} was trained beside another",
                where=config.name,
                hint="Start `kcm update` again: it starts from the champion of today",
            )
        delivery = deliver(candidate.version)
        if delivery.stopped is not None:
            champions.pointer.reject(candidate.digest, delivery.stopped, upto=upto)
            return {
                "promoted": False,
                "awaits_approval": False,
                "reason": f"stopped on traffic: {delivery.stopped}",
                "canary": delivery.stages,
            }
        renewed = champion_now(
            candidate.version,
            candidate.digest,
            candidate.bundle,
            by="update",
            after=watermark_of(config),
            parent=candidate.parent,
        )
        champions.promote(renewed, expected=current.number)
    return {
        "promoted": True,
        "awaits_approval": False,
        "reason": "every promotion gate has passed",
        "served": delivery.served,
        "canary": delivery.stages,
    }


def _sufficient_labels(config: RunConfig, state: LoopState) -> GivenLabels | None:
    """The labels that certify more of the last turn's challenger; None where no inbox was opened or they do not yet."""
    if not _opened_inboxes(config, state):
        return None
    from pipelines.loop.labelling import sufficient_labels

    return sufficient_labels(config)


def _withdraw_labels(config: RunConfig, state: LoopState) -> None:
    """Ask for no more labels of the challenger before, or of one that they sufficed for."""
    if _opened_inboxes(config, state):
        from pipelines.loop.labelling import withdraw_labels

        withdraw_labels(config)


def _opened_inboxes(config: RunConfig, state: LoopState) -> bool:
    return bool(Journal(state.store.control, inboxes_key(config.name)).entries())


def _fingerprint(labels: GivenLabels) -> str:
    return configuration_fingerprint(labels.model_dump(mode="json"))


def _reason(found: list[PromotionGate]) -> str:
    """The reasons of the gates that did not pass."""
    return "; ".join(gate.reason for gate in found if gate.verdict != "pass") or "every promotion gate has passed"


def _configuration(config: RunConfig) -> str:
    """The fingerprint of all that decides what an attempt learns and must show."""
    operational = {"cluster", "tracking", "serve", "storage_path", "assets_path", "update", "costs"}
    assert config.update is not None
    when = {"approval", "every_s", "poll_s", "new_large_answers", "new_labels", "canary"}
    return configuration_fingerprint(
        config.model_dump(mode="json", exclude=operational)
        | {"update": config.update.model_dump(mode="json", exclude=when)}
    )
