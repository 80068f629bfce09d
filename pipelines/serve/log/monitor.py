"""Whether a version keeps the promise of its certificate, computed from the log of all its answers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta

from kcm.certification.certificate import Certificate
from kcm.certification.monitoring.monitor import Observations, loss_interval
from pipelines.serve.log.alarm import DecisionAlarm
from pipelines.serve.log.database import LogUnavailableError
from pipelines.serve.log.decisions import DecisionLog, Tally
from pipelines.serve.log.entries import utc_now
from pipelines.serve.log.writer import LogWriter
from pipelines.serve.metrics import ServeMetrics

CHECK_AFTER_S = 5.0  # events are collected for this long before the log is read
RECALL_AFTER_S = 1.0  # under traffic, an alarm of another replica is noticed within this time
REST = 50  # a check that takes t seconds is followed by a rest of 50 t: a long log takes 2% of a thread at most
MAX_EVENTS = 20_000  # decisions read in one query: labels wait for it
LABEL_WAIT = timedelta(days=1)  # time in which a label may follow its answer
_DELTA = 0.1  # the record of a version without a certificate

logger = logging.getLogger("ray.serve")


@dataclass(frozen=True)
class Bounds:
    """Ends of the confidence sequences, each at the certificate's delta, and the flag of a refuted certificate.

    `num_items` is the number of items behind them. Items that the small model answered because the large model failed
    are skipped: the certificate does not cover them.
    """

    disagreement: tuple[float, float]
    regret: tuple[float, float]
    alarm: bool
    num_items: int


def bounds(tallies: Sequence[Tally], certificate: Certificate | None) -> Bounds:
    """The bounds of a version from its tallies; items answered while audits were off are skipped.

    `disagreement` is how often kept items differ from the large model, which bounds the lost accuracy from above
    without labels. `regret` is the lost accuracy. An audit that is lost or still running widens both. A disagreement
    without a true label widens the regret, so the bound holds whichever answers get labels.
    """
    delta = certificate.delta if certificate else _DELTA
    credits_wins = certificate is not None and certificate.method == "net"
    watched = [tally for tally in tallies if tally.route != "small_degraded" and tally.audit_share > 0]
    regret = loss_interval([_regret(tally, credits_wins) for tally in watched], delta, credits_wins=credits_wins)
    return Bounds(
        disagreement=loss_interval([_disagreement(tally) for tally in watched], delta),
        regret=regret,
        alarm=certificate is not None and regret[0] >= certificate.epsilon,
        num_items=sum(tally.number for tally in watched),
    )


def _disagreement(tally: Tally) -> Observations:
    if tally.state is None:
        return Observations(tally.number, tally.audit_share)
    is_known = tally.state == "answered" and tally.agrees is not None  # else it has been forgotten
    low, high = (float(not tally.agrees),) * 2 if is_known else (0.0, 1.0)
    return Observations(tally.number, tally.audit_share, tally.audit_share, low, high)


def _regret(tally: Tally, credits_wins: bool) -> Observations:
    lowest = -1.0 if credits_wins else 0.0
    if tally.state is None or (tally.state == "answered" and tally.agrees):
        return Observations(tally.number, tally.audit_share)
    low, high = lowest, 1.0
    if tally.state == "answered" and tally.small_right is not None:
        low = high = max(lowest, float(bool(tally.large_right)) - float(tally.small_right))
    return Observations(tally.number, tally.audit_share, tally.audit_share, low, high)


class Monitor:
    """Watches one version through the log; an alarm is committed to the log and stays.

    A version has one sequence, whatever the number of replicas and restarts: each check continues from the state in the
    log, and of two checks at once only the first is written. Without a certificate nothing was promised, so nothing
    raises the alarm. `act` is called after every check with whether any replica found the certificate refuted.

    Labels can refute through two alarms, each at half of the certificate's delta: one that bets on decision after
    decision and waits up to LABEL_WAIT for a label, and the interval over all decisions, which accepts labels at
    any time.
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
        self._act, self._alarm = act, _alarm_of(certificate) if certificate else None
        self._scheduled: asyncio.Task[None] | None = None
        self._recalling: asyncio.Task[None] | None = None
        self._took_s = 0.0

    def schedule(self) -> None:
        """Check the alarms and read the log soon; further calls until then cause no second check."""
        if self._recalling is None or self._recalling.done():
            self._recalling = asyncio.create_task(self._recall_soon())
        if self._scheduled is None or self._scheduled.done():
            self._scheduled = asyncio.create_task(self._check_soon())

    async def recall(self) -> bool:
        """Act on an alarm that any replica has raised. Raises LogUnavailableError."""
        refuted = await self._log.call(DecisionLog.is_refuted, self._version)
        self._act(refuted)
        return refuted

    async def check(self) -> Bounds | None:
        """Advance the version's alarm, commit it when it is raised, publish the bounds. Raises LogUnavailableError.

        Returns None if another process was faster.
        """
        refuted = await self.recall()
        record = await self._log.call(DecisionLog.alarms, self._version)
        if alarm := self._alarm:
            alarm.load_state_dict(dict(record.state) or None)
        tallies = await self._log.call(DecisionLog.tallies, self._version)
        if alarm:
            await self._advance(alarm)
        state = alarm.state_dict() if alarm else {}
        if not await self._log.call(DecisionLog.put_alarms, self._version, record.revision, state):
            return None  # another process was faster: what was computed here is dropped, and read again next time
        alarmed = (alarm is not None and alarm.alarm) or _interval_refutes(tallies, self._certificate)
        if alarmed and self._certificate and not refuted:
            if await self._log.call(DecisionLog.refute, self._version):
                logger.error(
                    "version %s loses more than the %g that its certificate allows",
                    self._version,
                    self._certificate.epsilon,
                )
            self._act(True)
        ends = replace(bounds(tallies, self._certificate), alarm=alarmed or refuted)
        self._metrics.set_bounds(self._version, disagreement=ends.disagreement, regret=ends.regret, alarm=ends.alarm)
        return ends

    async def _advance(self, alarm: DecisionAlarm) -> None:
        """Bet on what is new in the log; a long log in pieces."""
        while True:
            events = await self._log.call(
                DecisionLog.events, self._version, alarm.after, MAX_EVENTS, label_free=alarm.label_free
            )
            if not alarm.advance(events, utc_now()) or len(events) < MAX_EVENTS:
                return

    async def _recall_soon(self) -> None:
        await asyncio.sleep(RECALL_AFTER_S)
        with suppress(LogUnavailableError):  # of which the check tells
            await self.recall()

    async def _check_soon(self) -> None:
        await asyncio.sleep(max(CHECK_AFTER_S, REST * self._took_s))
        started = time.monotonic()
        try:
            await self.check()
        except LogUnavailableError as error:
            logger.warning("version %s cannot be watched: %s", self._version, error)
        self._took_s = time.monotonic() - started


def _alarm_of(certificate: Certificate) -> DecisionAlarm | None:
    """The e-process against a certificate, decision by decision; wins that offset losses are no events."""
    match certificate.method:
        case "traffic":
            return DecisionAlarm(certificate.epsilon, certificate.delta, label_free=True)
        case "net":
            return None
        case _:
            return DecisionAlarm(certificate.epsilon, certificate.delta / 2, label_free=False, wait=LABEL_WAIT)


def _interval_refutes(tallies: Sequence[Tally], certificate: Certificate | None) -> bool:
    """Whether labels show that the mean loss of all decisions exceeds the limit, however late they arrived.

    Uses the delta that the decision alarm leaves: none of it if labels decide nothing.
    """
    if certificate is None or certificate.method == "traffic":
        return False
    share = 1.0 if certificate.method == "net" else 0.5
    return bounds(tallies, certificate.model_copy(update={"delta": share * certificate.delta})).alarm
