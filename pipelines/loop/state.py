"""The state of the loop for an application: champions, attempts, its position in the log, and `loop.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kcm.certification.monitoring.novelty import ALARM_DELTA
from kcm.redact import redacted_values
from kcm.report.page import render_loop, write_page
from pipelines.config import RunConfig
from pipelines.loop.attempts import Attempts
from pipelines.registry.champion import Champion, Pointer
from pipelines.registry.promote import Champions
from pipelines.serve.config import log_url
from pipelines.serve.log.window import LogReader, log_watermark
from pipelines.store.artefact import ArtefactStore, write_json

LOOP = "loop.json"
LOG_TIMEOUT_S = 60.0  # how long a command waits for a locked log; a service waits `serve.feedback.timeout_s`


@dataclass(frozen=True)
class LoopState:
    """The champions and the attempts of a run's application, in its store."""

    name: str
    store: ArtefactStore
    champions: Champions
    attempts: Attempts

    @classmethod
    def of(cls, config: RunConfig) -> LoopState:
        """The state in the storage of a run."""
        store = ArtefactStore(config.storage_path)
        champions = Champions(
            Pointer(store.control, config.name),
            config.tracking.uri_in(config.storage_folder),
            config.name,
        )
        return cls(config.name, store, champions, Attempts(store.control, config.name))

    @property
    def path(self) -> Path:
        """The path of `loop.json`."""
        return self.store.root / "runs" / self.name / LOOP

    def as_json(self) -> dict[str, Any]:
        """The champion, all turns, and the last rollback."""
        current = self.champions.pointer.current()
        return {
            "name": self.name,
            "champion": current and current.champion.model_dump(mode="json"),
            "turns": self.attempts.turns(),
            "rolled_back": self.rolled_back(),
        }

    def rolled_back(self) -> dict[str, Any] | None:
        """The last version that was rolled back or stopped on traffic, with reason and time; None without one."""
        rejections = self.champions.pointer.rejections()
        if not rejections:
            return None
        last = rejections[-1]
        current = self.champions.pointer.current()
        return {
            "version": self.versions().get(last["digest"]),
            "champion": current and current.champion.version,
            "reason": last["reason"],
            "at": last["at"],
        }

    def versions(self) -> dict[str, str]:
        """Every version that was a champion or a challenger, by the digest of its bundle."""
        versions = {champion.digest: champion.version for champion in self.champions.pointer.history()}
        return versions | {turn["digest"]: turn["version"] for turn in self.attempts.turns() if turn.get("digest")}

    def bundles(self) -> dict[str, str]:
        """Every such version, and the artefact of `register` that holds its bundle."""
        turns = (turn["candidate"] for turn in self.attempts.turns() if turn.get("candidate"))
        bundles = {candidate["version"]: candidate["bundle"] for candidate in turns}
        return bundles | {champion.version: champion.bundle for champion in self.champions.pointer.history()}

    def write(self) -> dict[str, str]:
        """Write `loop.json` and its page; returns their locations."""
        content, page = redacted_values(self.as_json()), self.path.with_suffix(".html")
        write_page(render_loop(content), page)
        write_json(self.path, content)
        for path in (self.path, page):
            self.store.storage.keep(path)
        return {"result_path": self.store.storage.where(self.path), "report_path": self.store.storage.where(page)}


def log_reader(config: RunConfig) -> LogReader:
    """The log of a run's service. DataError if nothing has been served yet."""
    return LogReader(log_url(config.serve, config.storage_folder), config.application)


def watermark_of(config: RunConfig) -> int:
    """The number of the last decision that a window of an application may end with; 0 if nothing is logged."""
    return log_watermark(log_url(config.serve, config.storage_folder), config.application)


def faults_of(log: LogReader, version: str) -> tuple[str, ...]:
    """The evidence in the log against a version: its certificate is refuted, or new classes are in its traffic."""
    has_new_classes = log.novelty(version) >= 1 / ALARM_DELTA
    signs = {"its certificate is refuted": log.alarm(version) is not None, "new classes": has_new_classes}
    return tuple(sign for sign, holds in signs.items() if holds)


def window_start(config: RunConfig, champion: Champion) -> int:
    """The decision after which a window begins: the last one before the promotion, or before an alarm.

    The decisions behind the alarm chose the attempt, so they cannot certify its result.
    """
    if not watermark_of(config):
        return champion.after
    with log_reader(config) as log:
        return max(champion.after, log.alarm(champion.version) or 0)
