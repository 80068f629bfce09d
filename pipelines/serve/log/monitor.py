"""Whether a version keeps what its certificate promises, from what the log says of all that it answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from kcm.certify.certificate import Certificate
from kcm.certify.monitor import Observations, loss_interval
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import Tally
from pipelines.serve.log.writer import LogWriter

LOOK_AFTER_S = 5.0  # time in which what happens is gathered before the log is read
_REST = 50  # times as long as a look takes it rests before the next: a long log takes 2% of a thread, not more
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


class MonitorRecorder(Protocol):
    """What shows the bounds; `pipelines.serve.deploy.metrics.ServeMetrics` is one."""

    def watched(self, version: str, bounds: Bounds) -> None:
        """Tell how things stand with a version's promise."""


def bounds(tallies: Sequence[Tally], certificate: Certificate | None) -> Bounds:
    """What a version's tallies say of it; items that were answered while nothing was audited say nothing.

    `disagreement` is how often kept items differ from the large model, which bounds the accuracy that is lost from
    above without a label; `regret` is the accuracy that is lost. An audit that is lost, or whose outcome is not known
    yet, may have lost or not: it widens both. So does a disagreement without a true label widen the regret, which
    keeps it true whoever gives labels and to which answers.
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
    known = tally.state == "answered"
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

    Every replica that looks computes the same from the same log: there is one sequence for a version, whatever the
    number of replicas and however often they start. Without a certificate nothing was promised, and nothing raises
    the alarm.
    """

    def __init__(
        self, log: LogWriter, version: str, certificate: Certificate | None, recorder: MonitorRecorder
    ) -> None:
        self._log, self._version, self._certificate, self._recorder = log, version, certificate, recorder
        self._looking: asyncio.Task[None] | None = None
        self._took_s = 0.0

    def stir(self) -> None:
        """Something has happened: look soon."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.create_task(self._look_soon())

    async def look(self) -> Bounds:
        """Read the log, and tell what it says. Raises LogUnavailableError."""
        found = bounds(await self._log.tallies(self._version), self._certificate)
        if found.alarm and self._certificate:
            epsilon, low = self._certificate.epsilon, found.regret[0]
            if await self._log.raise_alarm(self._version, epsilon, low):
                logger.error("version %s loses more than %g: at least %.4f of accuracy", self._version, epsilon, low)
        elif await self._log.has_alarm(self._version):
            found = replace(found, alarm=True)
        self._recorder.watched(self._version, found)
        return found

    async def _look_soon(self) -> None:
        await asyncio.sleep(max(LOOK_AFTER_S, _REST * self._took_s))
        started = time.monotonic()
        try:
            await self.look()
        except LogUnavailableError as error:
            logger.warning("version %s cannot be watched: %s", self._version, error)
        self._took_s = time.monotonic() - started
