"""Whether a version keeps what its certificate promises, computed from the log of all that it answered."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from kcm.certify.certificate import Certificate
from kcm.certify.monitor import Observations, loss_interval
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import Tally
from pipelines.serve.log.watch import Watch
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

CHECK_AFTER_S = 5.0  # time in which events are gathered before the log is read
RECALL_AFTER_S = 1.0  # time in which an alarm of another replica is seen, while there is traffic
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
    """Watches one version by the log; an alarm is committed there, and stays.

    Every replica computes the same from the same log: a version has one sequence, whatever the number of replicas and
    however often they start. Without a certificate nothing was promised, and nothing raises the alarm. `act` is told
    after every look whether the certificate is refuted, by whichever replica.
    """

    def __init__(
        self,
        log: LogWriter,
        version: str,
        certificate: Certificate | None,
        metrics: ServeMetrics,
        act: Callable[[bool], None] = lambda refuted: None,
    ) -> None:
        self._log, self._version, self._certificate, self._metrics = log, version, certificate, metrics
        self._act = act
        # Wins that count against losses are no events; there the interval of all decisions decides.
        self._watch = None if certificate is None or certificate.method == "net" else Watch.of(certificate)
        self._scheduled: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None
        self._took_s = 0.0

    def schedule(self) -> None:
        """Look for alarms and read the log soon; calls until then cause one reading of each."""
        if self._recalling is None or self._recalling.done():
            self._recalling = asyncio.create_task(self._recall_soon())
        if self._scheduled is None or self._scheduled.done():
            self._scheduled = asyncio.create_task(self._check_soon())

    async def recall(self) -> bool:
        """Act upon an alarm that any replica has given, if one has. Raises LogUnavailableError."""
        refuted = await self._log.has_alarm(self._version)
        self._act(refuted)
        return refuted

    async def check(self) -> Bounds:
        """Compute the bounds from the log, commit an alarm, show both. Raises LogUnavailableError."""
        refuted = await self.recall()
        found = bounds(await self._log.tallies(self._version), self._certificate)
        if self._watch:
            await self._watch.read_on(self._log, self._version)
            found = replace(found, alarm=self._watch.alarm)
        if found.alarm and self._certificate and not refuted:
            label_free = self._watch is not None and self._watch.label_free
            epsilon, low = self._certificate.epsilon, (found.disagreement if label_free else found.regret)[0]
            if await self._log.raise_alarm(self._version, epsilon, low):
                logger.error("version %s loses more than the %g that its certificate allows", self._version, epsilon)
            self._act(True)
        found = replace(found, alarm=found.alarm or refuted)
        self._metrics.set_bounds(self._version, disagreement=found.disagreement, regret=found.regret, alarm=found.alarm)
        return found

    async def _recall_soon(self) -> None:
        await asyncio.sleep(RECALL_AFTER_S)
        with suppress(LogUnavailableError):  # of which the check tells
            await self.recall()

    async def _check_soon(self) -> None:
        await asyncio.sleep(max(CHECK_AFTER_S, _REST * self._took_s))
        started = time.monotonic()
        try:
            await self.check()
        except LogUnavailableError as error:
            logger.warning("version %s cannot be watched: %s", self._version, error)
        self._took_s = time.monotonic() - started
