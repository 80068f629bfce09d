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


class Attempt(Config):
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
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


class Attempts:
    """The attempts of an application, in the store's control records."""

    def __init__(self, control: Control, application: str) -> None:
        self._journal = Journal(control, f"loop/{application}/attempts")

    def next(self, champion: Champion, after: int, watermark: int, configuration: str) -> Attempt | None:
        """The attempt that is `due`, which is written down unless it was interrupted; None where none is."""
        attempt = self.due(champion, after, watermark, configuration)
        if attempt is not None and attempt != self.interrupted():
            self._journal.append(lambda _: {"attempt": attempt.name, "opened": attempt.model_dump(mode="json")})
        return attempt

    def due(self, champion: Champion, after: int, watermark: int, configuration: str) -> Attempt | None:
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
        if (earlier := self.interrupted()) and _goes_on(earlier, champion, after, configuration):
            return earlier
        attempt = Attempt(champion=champion.digest, after=after, upto=watermark, configuration=configuration)
        if watermark <= after or attempt.name in {each["attempt"] for each in self.turns()}:
            return None
        return attempt

    def relabelled(self, labels: str, configuration: str) -> Attempt | None:
        """The last turn's attempt once more, by labels on its challenger's disagreements.

        None where it was of another configuration, or was made already.
        """
        turn = self.turns()[-1]
        attempt = Attempt(
            champion=turn["champion_digest"],
            after=turn["after"],
            upto=turn["upto"],
            configuration=configuration,
            labels=labels,
        )
        if turn["configuration"] != configuration or attempt.name in {each["attempt"] for each in self.turns()}:
            return None
        self._journal.append(lambda _: {"attempt": attempt.name, "opened": attempt.model_dump(mode="json")})
        return attempt

    def close(self, attempt: str, turn: dict[str, Any]) -> None:
        """Write down what became of an attempt; what is written later of the same one takes its place."""
        entry = {"attempt": attempt, "turn": turn}
        self._journal.append(lambda _: entry, same=lambda each: each == entry)

    def refuse(self, attempt: str, reason: str) -> None:
        """Write down that an attempt could not be worked on; it may be started anew, or with another window."""
        self._journal.append(lambda _: {"attempt": attempt, "refused": reason})

    def turns(self) -> list[dict[str, Any]]:
        """What became of each finished attempt, the first one first."""
        found: dict[str, dict[str, Any]] = {}
        for entry in self._journal.entries():
            if "turn" in entry:
                found[entry["attempt"]] = {"attempt": entry["attempt"]} | entry["turn"]
        return list(found.values())

    def interrupted(self) -> Attempt | None:
        """The last attempt, unless it is finished."""
        entries = self._journal.entries()
        opened = max((place for place, each in enumerate(entries) if "opened" in each), default=None)
        if opened is None:
            return None
        ended = any(each["attempt"] == entries[opened]["attempt"] for each in entries[opened + 1 :])
        return None if ended else Attempt.model_validate(entries[opened]["opened"])


def _goes_on(attempt: Attempt, champion: Champion, after: int, configuration: str) -> bool:
    """Whether an interrupted attempt is still what is asked for; it may have promoted its challenger already."""
    promoted = champion.by == "update" and champion.parent == attempt.champion
    if attempt.labels is not None:  # which are looked for anew
        return False
    untouched = (champion.digest, after) == (attempt.champion, attempt.after)
    return attempt.configuration == configuration and (promoted or untouched)


def configuration_fingerprint(settings: dict[str, Any]) -> str:
    """64 bits of SHA-256 over settings as plain values, as hexadecimal."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]
