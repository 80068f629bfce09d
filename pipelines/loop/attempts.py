"""Attempts to update: the running attempt, and the outcome of earlier ones.

The champion, the log's watermark and the configuration name an attempt. It is recorded before anything is computed, so
a killed attempt resumes with its own window even if the log has grown: its work is reused, and it pays for no second
look.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kcm.config import Config
from kcm.errors import DataError
from pipelines.registry.champion import Champion
from pipelines.store.records import Control, Journal


class UpdateAttempt(Config):
    """One attempt: the digest of the champion, the window of the log, and the fingerprint of the configuration.

    `labels` is the fingerprint of the labels with which the challenger of an earlier attempt is certified again.
    """

    champion: str
    after: int
    upto: int
    configuration: str
    labels: str | None = None

    @property
    def name(self) -> str:
        """64 bits of SHA-256 over all fields, as hexadecimal."""
        return fingerprint_of(self.model_dump(mode="json"))


class Attempts:
    """The attempts of an application, in the store's control records."""

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/attempts")

    def due(self, champion: Champion, after: int, watermark: int, configuration: str) -> UpdateAttempt | None:
        """The attempt on the window (after, watermark]: an interrupted one, or else a new one.

        None if the log holds nothing new since the last attempt or promotion. Raises DataError if the log ends before
        the last promotion: it is another log.
        """
        if watermark < champion.after:
            raise DataError(
                f"the log ends at decision {watermark}, the window begins after {champion.after}, where"
                f" {champion.version} was promoted",
                where="log",
                hint="Restore the log; or `kcm promote` the champion again, and the window begins at its end",
            )
        if (earlier := self.interrupted()) and self._goes_on(earlier, champion, after, configuration):
            return earlier
        attempt = UpdateAttempt(champion=champion.digest, after=after, upto=watermark, configuration=configuration)
        return None if watermark <= after or self._was_made(attempt) else attempt

    def relabelled(self, labels: str, configuration: str) -> UpdateAttempt | None:
        """The last turn's attempt again, with labels of people. None if it exists already.

        DataError without a turn, or if the configuration has changed since.
        """
        turn = next(iter(reversed(self.turns())), None)
        if turn is None or turn["configuration"] != configuration:
            fault = "the configuration has changed since the last turn" if turn else "there was no turn yet"
            raise DataError(fault, where="--labels", hint="Start `kcm update` without --labels first")
        attempt = UpdateAttempt(
            champion=turn["champion_digest"],
            after=turn["after"],
            upto=turn["upto"],
            configuration=configuration,
            labels=labels,
        )
        return None if self._was_made(attempt) else attempt

    def open(self, attempt: UpdateAttempt) -> None:
        """Record an attempt before it works, unless it is the interrupted one."""
        if attempt != self.interrupted():
            self._journal.append(lambda _: {"attempt": attempt.name, "opened": attempt.model_dump(mode="json")})

    def prepare(self, attempt: str, turn: dict[str, Any]) -> None:
        """Record what a turn will be once its challenger is promoted or held back."""
        self._journal.append(lambda _: {"attempt": attempt, "prepared": turn})

    def close(self, attempt: str, turn: dict[str, Any]) -> None:
        """Record the outcome of an attempt; a later record of the same attempt replaces an earlier one."""
        entry = {"attempt": attempt, "turn": turn}
        self._journal.append(lambda _: entry, same=lambda stored_entry: stored_entry == entry)

    def refuse(self, attempt: str, reason: str) -> None:
        """Record that an attempt was impossible; it may be retried, or replaced by one with another window."""
        self._journal.append(lambda _: {"attempt": attempt, "refused": reason})

    def turns(self) -> list[dict[str, Any]]:
        """The outcome of each finished attempt, in order."""
        turns: dict[str, dict[str, Any]] = {}
        for entry in self._journal.entries():
            if "turn" in entry:
                turns[entry["attempt"]] = {"attempt": entry["attempt"]} | entry["turn"]
        return list(turns.values())

    def unrecorded(self, champion: Champion) -> dict[str, Any] | None:
        """The turn that promoted `champion`, if it was killed before it recorded this."""
        turns: dict[str, dict[str, Any]] = {}
        for entry in self._journal.entries():
            if turn := entry.get("turn", entry.get("prepared")):
                turns[entry["attempt"]] = {"attempt": entry["attempt"]} | turn
        own = [turn for turn in turns.values() if champion.by == "update" and turn["digest"] == champion.digest]
        return own[-1] if own and not own[-1]["promoted"] else None

    def interrupted(self) -> UpdateAttempt | None:
        """The last attempt, unless it is finished."""
        last: UpdateAttempt | None = None
        for entry in self._journal.entries():
            if "opened" in entry:
                last = UpdateAttempt.model_validate(entry["opened"])
            elif last is not None and entry["attempt"] == last.name and "prepared" not in entry:
                last = None
        return last

    def _goes_on(self, attempt: UpdateAttempt, champion: Champion, after: int, configuration: str) -> bool:
        """Whether an interrupted attempt is still the requested one."""
        if attempt.labels is not None or attempt.configuration != configuration:  # labels are collected again
            return False
        return (champion.digest, after) == (attempt.champion, attempt.after)

    def _was_made(self, attempt: UpdateAttempt) -> bool:
        return attempt.name in {turn["attempt"] for turn in self.turns()}


def fingerprint_of(values: dict[str, Any]) -> str:
    """64 bits of SHA-256 over plain values, as hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
