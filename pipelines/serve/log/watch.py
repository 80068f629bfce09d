"""Whether a version keeps what its certificate promises, from what audits and feedback show of it."""

from __future__ import annotations

from dataclasses import dataclass

from kcm.certify.certificate import Certificate
from kcm.certify.monitor import AuditMonitor
from pipelines.serve.log.feedback import Labelled


@dataclass(frozen=True)
class Bounds:
    """Ends of the confidence sequences so far, and whether the certificate is refuted."""

    disagreement: tuple[float, float]
    regret: tuple[float, float]
    alarm: bool


class Watch:
    """Two confidence sequences of one version, each valid at any time, since this replica has had the version.

    `disagreement` is over all items: how often kept ones differ from the large model, which bounds the accuracy that is
    lost from above without a single label. `regret` is over the items of which the true label came: the accuracy that
    is lost. Without a certificate nothing was promised, and nothing raises the alarm.
    """

    def __init__(self, certificate: Certificate | None, probability: float) -> None:
        epsilon, delta = (certificate.epsilon, certificate.delta) if certificate else (0.5, 0.1)
        self._credits_wins = certificate is not None and certificate.method == "net"
        self._disagreement = AuditMonitor(epsilon, delta, probability)
        self._regret = AuditMonitor(epsilon, delta, probability, credits_wins=self._credits_wins)
        self._promised = certificate is not None
        self._idle = {"disagreement": 0, "regret": 0}  # items without an audit, counted in before the next one with one

    def passed(self, number: int) -> None:
        """Items were answered that are not audited."""
        self._idle["disagreement"] += number

    def compared(self, probability: float, *, agree: bool) -> None:
        """The large model has answered an audited item."""
        self._observe("disagreement", self._disagreement, probability, float(not agree))

    def labelled(self, item: Labelled) -> None:
        """A true label has come; that of an audit which is still under way comes again when it has ended."""
        audit = item.audit
        if audit is None:
            self._idle["regret"] += 1
        elif audit.large_label is not None:
            small_right, large_right = audit.small_label == item.label, audit.large_label == item.label
            loss = float(large_right) - float(small_right)
            self._observe("regret", self._regret, audit.probability, loss if self._credits_wins else max(0.0, loss))

    @property
    def bounds(self) -> Bounds:
        """How things stand."""
        return Bounds(
            disagreement=(self._disagreement.low, self._disagreement.high),
            regret=(self._regret.low, self._regret.high),
            alarm=self._promised and self._regret.alarm,
        )

    def _observe(self, name: str, monitor: AuditMonitor, probability: float, loss: float) -> None:
        idle, self._idle[name] = self._idle[name], 0
        monitor.observe([False] * idle + [True], [1.0] * idle + [probability], [0.0] * idle + [loss])
