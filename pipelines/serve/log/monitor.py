"""Whether a version keeps what its certificate promises, computed from the log of all that it answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from kcm.certify.certificate import Certificate
from kcm.certify.monitor import Observations, loss_interval
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import Tally
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

CHECK_AFTER_S = 5.0  # time in which events are gathered before the log is read
_REST = 50  # a check that takes t seconds is followed by a rest of 50 t: a long log takes 2% of a thread at most
_DELTA = 0.1  # of a version without a certificate

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Bounds:
    """Ends of the confidence sequences, each at the certificate's delta, and whether the certificate is refuted.

    `num_items` is how many items they are about; `num_degraded` were answered by the small model in place of a large
    one that failed, which the certificate does not cover, and are left out.
    """

    disagreement: tuple[float, float]
    regret: tuple[float, float]
    alarm: bool
    num_items: int
    num_degraded: int


def bounds(tallies: Sequence[Tally], certificate: Certificate | None) -> Bounds:
    """The bounds of a version from its tallies; items that were answered while nothing was audited are left out.

    `disagreement` is how often kept items differ from the large model, which bounds the accuracy that is lost from
    above without a label; `regret` is the accuracy that is lost. An audit that is lost, or whose outcome is not known
    yet, widens both. A disagreement without a true label widens the regret, so that the bound holds whichever answers
    get labels.
    """
    delta = certificate.delta if certificate else _DELTA
    credits_wins = certificate is not None and certificate.method == "net"
    covered = [tally for tally in tallies if tally.route != "small_degraded"]
    watched = [tally for tally in covered if tally.audit_share > 0]
    regret = loss_interval([_regret(tally, credits_wins) for tally in watched], delta, credits_wins=credits_wins)
    num_items = sum(tally.number for tally in watched)
    return Bounds(
        disagreement=loss_interval([_disagreement(tally) for tally in watched], delta),
        regret=regret,
        alarm=certificate is not None and regret[0] >= certificate.epsilon,
        num_items=num_items,
        num_degraded=sum(tally.number for tally in tallies) - sum(tally.number for tally in covered),
    )


def _disagreement(tally: Tally) -> Observations:
    if tally.state is None:
        return Observations(tally.number, tally.audit_share)
    known = tally.state == "answered" and tally.agrees is not None  # else it has been forgotten
    low, high = (float(not tally.agrees),) * 2 if known else (0.0, 1.0)
    return Observations(tally.number, tally.audit_share, tally.probability, low, high)


def _regret(tally: Tally, credits_wins: bool) -> Observations:
    lowest = -1.0 if credits_wins else 0.0
    if tally.state is None or (tally.state == "answered" and tally.agrees):
        return Observations(tally.number, tally.audit_share)
    low, high = lowest, 1.0
    if tally.state == "answered" and tally.small_right is not None:
        low = high = max(lowest, float(bool(tally.large_right)) - float(tally.small_right))
    return Observations(tally.number, tally.audit_share, tally.probability, low, high)


class Monitor:
    """Computes the bounds of one version from the log; an alarm is committed there, and stays.

    Every replica computes the same from the same log: a version has one sequence, whatever the number of replicas and
    however often they start. Without a certificate nothing was promised, and nothing raises the alarm.
    """

    def __init__(self, log: LogWriter, version: str, certificate: Certificate | None, metrics: ServeMetrics) -> None:
        self._log, self._version, self._certificate, self._metrics = log, version, certificate, metrics
        self._scheduled: asyncio.Task[None] | None = None
        self._took_s = 0.0

    def schedule(self) -> None:
        """Read the log soon; calls until then cause one reading."""
        if self._scheduled is None or self._scheduled.done():
            self._scheduled = asyncio.create_task(self._check_soon())

    async def check(self) -> Bounds:
        """Compute the bounds from the log, commit an alarm, show both. Raises LogUnavailableError."""
        found = bounds(await self._log.tallies(self._version), self._certificate)
        if found.alarm and self._certificate:
            epsilon, low = self._certificate.epsilon, found.regret[0]
            if await self._log.raise_alarm(self._version, epsilon, low):
                logger.error("version %s loses more than %g: at least %.4f of accuracy", self._version, epsilon, low)
        elif await self._log.has_alarm(self._version):
            found = replace(found, alarm=True)
        self._metrics.set_bounds(self._version, disagreement=found.disagreement, regret=found.regret, alarm=found.alarm)
        return found

    async def _check_soon(self) -> None:
        await asyncio.sleep(max(CHECK_AFTER_S, _REST * self._took_s))
        started = time.monotonic()
        try:
            await self.check()
        except LogUnavailableError as error:
            logger.warning("version %s cannot be watched: %s", self._version, error)
        self._took_s = time.monotonic() - started
