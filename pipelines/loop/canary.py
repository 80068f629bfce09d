"""The trial of a challenger on traffic: it answers a growing share of the callers.

A stage ends after a fixed number of the challenger's own decisions. If they refute a limit, or do not show that the
challenger stays within it, the trial ends immediately and the champion answers everybody again.
`kcm.certification.monitoring.trial` decides; this module queries the service and the log.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from kcm.certification.monitoring.trial import Limits, StageVerdict, judge
from pipelines.loop.config import CanaryConfig
from pipelines.registry.champion import Challenger, Champion, Pointer
from pipelines.registry.replicas import RefusedByServiceError
from pipelines.serve.log.trial import TrialLog

POLL_S = 1.0
MAX_ERROR_RATE = 0.01  # share of failed requests that stops a challenger
MAX_SLOW_RATE = 0.05  # share of answers slower than the champion's 99th percentile that stops it
SETTLE_S = 60.0  # time limit for the last audits of a stage
DELTA = 0.1  # probability that a challenger as bad as a limit passes, and that a good one is refuted

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PointerTrial:
    """A trial through the champion pointer: replicas follow its entry for the challenger."""

    pointer: Pointer
    candidate: Champion
    champion: int  # the number of the champion beside it
    timeout_s: float

    def try_out(self, stage: int, share: float) -> None:
        """Let the challenger answer this share of the callers.

        Raises RefusedByServiceError if a replica does not follow, ReplacedError if the champion was replaced.
        """
        version, digest, bundle = self.candidate.version, self.candidate.digest, self.candidate.bundle
        challenger = Challenger(version=version, digest=digest, bundle=bundle, stage=stage, share=share)
        current = self.pointer.try_out(challenger, beside=self.champion)
        for report in self.pointer.reports.settled(current.record, self.timeout_s):
            if reason := report.refused.get(version):
                raise RefusedByServiceError(f"a replica dropped it: {reason}", where=version)

    def dropped(self) -> str | None:
        """Why a replica has dropped the challenger, if one has. Raises ReplacedError if a promotion ended the trial."""
        self.pointer.require(self.champion)
        refusals = (report.refused.get(self.candidate.version) for _, report in self.pointer.reports.read().values())
        return next(filter(None, refusals), None)

    def end(self) -> None:
        """Let the champion answer everybody."""
        self.pointer.try_out(None)


@dataclass
class Rollout:
    """One trial of the version `challenger` against `champion`; `stages` is the evidence so far.

    `disagreement` is the largest share of all items on which the challenger may disagree with the large model.
    """

    champion: str
    challenger: str
    config: CanaryConfig
    service: PointerTrial
    log: TrialLog
    disagreement: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    stages: list[StageVerdict] = field(default_factory=list)

    def run(self) -> str | None:
        """Take the challenger through all stages; why one failed, and then the champion answers everybody again.

        A challenger that has passed still answers the callers of the last stage until it is promoted. Raises errors
        that say nothing about the challenger: ReplacedError, and those of log and storage.
        """
        self._deadline, self._after = self.clock() + self.config.timeout_s, self.log.last_number()
        limits = Limits(
            error_rate=MAX_ERROR_RATE,
            slow_s=self.log.slowest(self.champion, 0.99),
            slow_rate=MAX_SLOW_RATE,
            disagreement=self.disagreement,
        )
        try:
            stages = (self._run_stage(stage, share, limits) for stage, share in enumerate(self.config.stages, start=1))
            stopped = next(filter(None, stages), None)
        except RefusedByServiceError as error:
            stopped = str(error)
        except BaseException:
            self.service.end()
            raise
        if stopped is not None:
            self.service.end()
            logger.warning("challenger %s is rolled back: %s", self.challenger, stopped)
        return stopped

    def _run_stage(self, stage: int, share: float, limits: Limits) -> str | None:
        """Let the challenger answer a share of the callers until the stage is decided; why it failed."""
        self.service.try_out(stage, share)
        subject = f"stage {stage}, with {share:.0%} of the callers"
        ended_at: float | None = None
        while True:
            if reason := self.service.dropped():
                return f"the service dropped it: {reason}"
            requests = self.log.read(self._after, self.challenger)
            verdict = judge(requests, limits, DELTA, stage=stage, share=share, num_stages=len(self.config.stages))
            self.stages[stage - 1 :] = [verdict]
            if verdict.verdict == "refuted":
                return f"{subject}: {verdict.reason}"
            if verdict.num_decisions >= self.config.decisions_per_stage:
                if verdict.verdict == "pass":
                    return None
                ended_at = self.clock() if ended_at is None else ended_at
                if self.clock() - ended_at > SETTLE_S:
                    return f"{subject}, is undecided: {verdict.reason}"
            if self.clock() > self._deadline:
                return (
                    f"too little traffic: {verdict.num_decisions} decisions in this stage within "
                    f"update.canary.timeout_s ({self.config.timeout_s:g} s)"
                )
            self.sleep(POLL_S)
