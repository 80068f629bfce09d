"""Trying a challenger on traffic: the champion's shadow at first, then the version of more and more callers.

A stage ends after a fixed number of the challenger's own decisions. What its traffic refutes, or does not show to stay
within its limits by then, ends the trial at once: the champion answers everybody again. `kcm.certify.monitoring.trial`
decides; here the service and the log are asked.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, Protocol

from kcm.certify.monitoring.trial import Limits, StageVerdict, judge, upper_bound
from kcm.config import Config
from kcm.errors import KcmError
from pipelines.loop.config import CanaryConfig
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.trial import RENEW_S, TrialFigures
from pipelines.serve.release import Challenger, Release

POLL_S = 1.0
REST = 5  # a reading of the log that takes t seconds is followed by a rest of 5 t
SETTLE_S = 60.0  # time that the last audits of a stage may take
DELTA = 0.1  # probability that a challenger as bad as a limit passes, and that a good one is refuted

logger = logging.getLogger(__name__)


class Service(Protocol):
    """The running service, as a trial needs it."""

    def change(self, release: Release) -> None:
        """Serve a release in every replica; KcmError where one does not."""

    def dropped(self, version: str) -> str | None:
        """Why a replica has dropped this challenger, if one has."""


class TrialReader(Protocol):
    """The log, as a trial needs it."""

    def last(self) -> int:
        """The number of the last decision."""

    def read(self, after: int, champion: str, challenger: str) -> TrialFigures:
        """The requests of a trial."""

    def renew(self, version: str) -> None:
        """Say that the trial of a challenger goes on."""


class RolloutOutcome(Config):
    """How a trial ended: what is served now, why, and what each stage has shown."""

    promoted: bool
    reason: str
    release: Release
    stages: tuple[StageVerdict, ...] = ()


class _StoppedError(Exception):
    """The trial ends, and the champion answers."""


@dataclass
class Rollout:
    """One trial. `epsilon` is what the challenger's certificate allows it to lose.

    `label_free` says that the certificate bounds its disagreement with the large model by epsilon. Where labels did,
    disagreement may be larger, and must not exceed what the shadow has shown by more than epsilon.
    """

    release: Release
    challenger: Release
    config: CanaryConfig
    service: Service
    log: TrialReader
    epsilon: float
    label_free: bool
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stages: list[StageVerdict] = field(default_factory=list)

    def run(self) -> RolloutOutcome:
        """Promote the challenger in the service, or leave the champion there; returns how it ended."""
        champion = self.release.champion
        self._deadline, self._after = self.clock() + self.config.timeout_s, self.log.last()
        try:
            limits = self._shadow()
            for stage, share in enumerate(self.config.stages, start=1):
                self._canary(stage, share, limits)
            self.service.change(self.challenger.champion)
        except (_StoppedError, KcmError) as error:
            self.service.change(champion)
            logger.warning("challenger %s is rolled back: %s", self.challenger.version, error)
            return RolloutOutcome(promoted=False, reason=str(error), release=champion, stages=tuple(self.stages))
        except BaseException:
            self.service.change(champion)
            raise
        reason = "every stage has passed"
        return RolloutOutcome(promoted=True, reason=reason, release=self.challenger.champion, stages=tuple(self.stages))

    def _shadow(self) -> Limits:
        """Let the challenger see the traffic, and find its limits."""
        self._try_out(0, "shadow", 0.0)
        trial = self._wait(lambda trial: trial.champion.num_decisions(0) >= self.config.shadow_decisions)
        seen = trial.champion
        shown = upper_bound(seen.lost_high, seen.share, DELTA)
        disagreement = self.epsilon if self.label_free else min(0.99, shown + self.epsilon)
        self.stages.append(
            StageVerdict(
                stage=0,
                share=0.0,
                num_decisions=seen.num_decisions(0),
                num_requests=len(seen),
                verdict="pass",
                reason=f"as a shadow it would disagree on at most {shown:.4f} of all items",
            )
        )
        return Limits(
            error_rate=self.config.max_error_rate,
            slow_s=seen.slowest(0.99),
            slow_rate=self.config.max_slow_rate,
            disagreement=disagreement,
        )

    def _canary(self, stage: int, share: float, limits: Limits) -> None:
        """Let the challenger answer a share of the callers until the stage is decided."""
        self._try_out(stage, "canary", share)
        ended_at: float | None = None

        def decided(trial: TrialFigures) -> bool:
            nonlocal ended_at
            verdict = judge(
                trial.challenger, limits, DELTA, stage=stage, share=share, num_stages=len(self.config.stages)
            )
            if self.stages[-1].stage == stage:
                self.stages.pop()
            self.stages.append(verdict)
            if verdict.verdict == "refuted":
                raise _StoppedError(f"stage {stage} at {share:.0%} of the callers: {verdict.reason}")
            if verdict.num_decisions < self.config.decisions_per_stage:
                return False
            ended_at = self.clock() if ended_at is None else ended_at
            return verdict.verdict == "pass" or self.clock() - ended_at > SETTLE_S

        self._wait(decided)
        if (last := self.stages[-1]).verdict != "pass":
            raise _StoppedError(f"stage {stage} at {share:.0%} of the callers is undecided: {last.reason}")

    def _try_out(self, stage: int, mode: Literal["shadow", "canary"], share: float) -> None:
        trial = Challenger(
            version=self.challenger.version,
            bundle=self.challenger.bundle,
            mode=mode,
            share=share,
            stage=stage,
            leased=True,
        )
        self.service.change(self.release.model_copy(update={"challenger": trial}))

    def _wait(self, done: Callable[[TrialFigures], bool]) -> TrialFigures:
        """Read the trial again and again until it is `done`."""
        while True:
            if reason := self.service.dropped(self.challenger.version):
                raise _StoppedError(f"the service dropped it: {reason}")
            started = self.clock()
            trial = self.log.read(self._after, self.release.version, self.challenger.version)
            if done(trial):
                return trial
            if self.clock() > self._deadline:
                num = self.stages[-1].num_decisions if self.stages else trial.champion.num_decisions(0)
                raise _StoppedError(
                    f"too little traffic: {num} decisions of this stage within the {self.config.timeout_s:g} s that"
                    " a trial may take (update.canary.timeout_s)"
                )
            self.sleep(max(POLL_S, REST * (self.clock() - started)))


def roll_out(
    release: Release,
    challenger: Release,
    config: CanaryConfig,
    *,
    service: Service,
    log: TrialReader,
    epsilon: float,
    label_free: bool,
) -> RolloutOutcome:
    """Bring `challenger` through shadow and canary beside `release`, and serve it alone, or `release` as before.

    Raises KcmError where the champion itself cannot be served again. See `Rollout` for the arguments.
    """
    with _signs_of_life(log, challenger.version):
        return Rollout(release, challenger, config, service, log, epsilon, label_free).run()


@contextmanager
def _signs_of_life(log: TrialReader, version: str) -> Iterator[None]:
    """Say regularly that the trial goes on, in a thread; where this process is killed, the service ends the trial."""
    ended = threading.Event()

    def renew() -> None:
        while True:
            try:
                log.renew(version)
            except LogUnavailableError as error:  # which the trial itself finds out
                logger.warning("no heartbeat for challenger %s: %s", version, error)
            if ended.wait(RENEW_S):
                return

    thread = threading.Thread(target=renew, name="signs-of-life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
