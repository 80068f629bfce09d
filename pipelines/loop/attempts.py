"""Attempts to update: which one is at work, and what became of those before.

An attempt is named by the champion that it starts from, the log's watermark and the configuration. It is written down
before anything is computed, so that a killed one goes on with its own window although the log has grown since: its
work is found again, and no second look is paid for.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kcm.config import Config
from kcm.errors import DataError
from pipelines.registry.champion import Champion
from pipelines.store.control.journal import Journal
from pipelines.store.control.records import Control


class UpdateAttempt(Config):
    """One attempt: the digest of the champion, the window of the log, and the fingerprint of the configuration.

    `labels` is the fingerprint of the labels by which the challenger of an earlier attempt is certified anew.
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

    def goes_on_from(self, champion: Champion, after: int, configuration: str) -> bool:
        """Whether an interrupted attempt is still what is asked for; it may have promoted its challenger already."""
        if self.labels is not None or self.configuration != configuration:  # labels are looked for anew
            return False
        promoted = champion.by == "update" and champion.parent == self.champion
        return promoted or (champion.digest, after) == (self.champion, self.after)


class Attempts:
    """The attempts of an application, in the store's control records."""

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/attempts")

    def due(self, champion: Champion, after: int, watermark: int, configuration: str) -> UpdateAttempt | None:
        """The attempt on the window (after, watermark]: an interrupted one, which goes on, else a new one.

        None where the log holds nothing new since the last attempt or promotion. Raises DataError for a log that ends
        before the last promotion: it is another one.
        """
        if watermark < champion.after:
            raise DataError(
                f"the log ends at decision {watermark}, the window begins after {champion.after}, where"
                f" {champion.version} was promoted",
                where="log",
                hint="Restore the log; or `kcm promote` the champion again, and the window begins at its end",
            )
        if (earlier := self.interrupted()) and earlier.goes_on_from(champion, after, configuration):
            return earlier
        attempt = UpdateAttempt(champion=champion.digest, after=after, upto=watermark, configuration=configuration)
        return None if watermark <= after or self._was_made(attempt) else attempt

    def relabelled(self, labels: str, configuration: str) -> UpdateAttempt | None:
        """The last turn's attempt once more, by labels on its challenger's disagreements.

        None where it was of another configuration, or was made already.
        """
        turn = self.turns()[-1]
        attempt = UpdateAttempt(
            champion=turn["champion_digest"],
            after=turn["after"],
            upto=turn["upto"],
            configuration=configuration,
            labels=labels,
        )
        return None if turn["configuration"] != configuration or self._was_made(attempt) else attempt

    def open(self, attempt: UpdateAttempt) -> None:
        """Write an attempt down before it works, unless it is the one that was interrupted."""
        if attempt != self.interrupted():
            self._journal.append(lambda _: {"attempt": attempt.name, "opened": attempt.model_dump(mode="json")})

    def close(self, attempt: str, turn: dict[str, Any]) -> None:
        """Write down what became of an attempt; what is written later of the same one takes its place."""
        entry = {"attempt": attempt, "turn": turn}
        self._journal.append(lambda _: entry, same=lambda other: other == entry)

    def refuse(self, attempt: str, reason: str) -> None:
        """Write down that an attempt could not be worked on; it may be started anew, or with another window."""
        self._journal.append(lambda _: {"attempt": attempt, "refused": reason})

    def turns(self) -> list[dict[str, Any]]:
        """What became of each finished attempt, the first one first."""
        turns: dict[str, dict[str, Any]] = {}
        for entry in self._journal.entries():
            if "turn" in entry:
                turns[entry["attempt"]] = {"attempt": entry["attempt"]} | entry["turn"]
        return list(turns.values())

    def interrupted(self) -> UpdateAttempt | None:
        """The last attempt, unless it is finished."""
        last: UpdateAttempt | None = None
        for entry in self._journal.entries():
            if "opened" in entry:
                last = UpdateAttempt.model_validate(entry["opened"])
            elif last is not None and entry["attempt"] == last.name:
                last = None
        return last

    def _was_made(self, attempt: UpdateAttempt) -> bool:
        return attempt.name in {turn["attempt"] for turn in self.turns()}


def fingerprint_of(values: dict[str, Any]) -> str:
    """64 bits of SHA-256 over plain values, as hexadecimal."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
