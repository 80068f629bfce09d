"""Promotion: the one way in which a version becomes the champion, whoever requests it.

The pointer is swapped first. Replicas of a service follow it; if one of them refuses the version, the promotion is
undone. MLflow's alias is written last, for readers of the registry. kcm never reads it; each command that touches the
registry writes it anew, so it follows after a crash, and after somebody moved it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from kcm.errors import KcmError
from pipelines.registry.champion import Champion, Current, Pointer, ReplacedError
from pipelines.registry.replicas import LOAD_TIMEOUT_S, SILENT_S, RefusedByServiceError
from pipelines.store.lease import leased
from pipelines.store.records import Control
from pipelines.tracking.tracking import set_champion

PROMOTION_WAIT_S = 600.0  # wait for a concurrent promotion: a served version takes time to load
WAITS = (
    f"promotion: waits for another promotion, at most {PROMOTION_WAIT_S:.0f} s, then until every replica of the service"
    f" has loaded the version, at most {LOAD_TIMEOUT_S:.0f} s; one that is silent for {SILENT_S:.0f} s counts as dead"
)


@dataclass(frozen=True)
class Champions:
    """The champion of an application: the pointer, and the registered model whose alias follows it."""

    pointer: Pointer
    uri: str
    model: str

    def promote(self, champion: Champion, *, expected: int) -> bool:
        """Make a version the champion after champion number `expected`; returns whether replicas serve it now.

        Raises ReplacedError if champion number `expected` was replaced, and RefusedByServiceError, with the champion
        unchanged, if a replica refuses the version or does not load it in time.
        """
        before = self.pointer.current()
        if before:  # its rollback may have been killed
            self._reject_left(before)
        promotion = self.pointer.swap(expected, champion)
        if promotion is None:
            raise ReplacedError(
                f"another version became the champion while {champion.version} was made ready",
                where=self.model,
                hint="Look at `kcm versions`, and start again",
            )
        try:
            served = self._followed_by_replicas(promotion)
        except BaseException:
            if before:
                self.pointer.take_back(promotion, before)
            raise
        self.write_alias()
        return served

    def _followed_by_replicas(self, promotion: Current) -> bool:
        """Whether there are replicas and each serves the champion."""
        version = promotion.champion.version
        reports = self.pointer.reports.settled(promotion.record, LOAD_TIMEOUT_S)
        for report in reports:
            if report.version != version:
                raise RefusedByServiceError(
                    f"version {version} is refused: {report.refused.get(version, 'no reason was given')}",
                    where=self.model,
                    hint=f"Version {report.version} goes on",
                )
        return bool(reports)

    def followed(self, champion: Champion) -> bool:
        """Whether a version was the champion before and was replaced."""
        current = self.pointer.current()
        if current is None or current.champion.digest == champion.digest:
            return False
        return any(earlier.digest == champion.digest for earlier in self.pointer.history())

    def introduce(self, champion: Champion) -> None:
        """Promote a version of a run like `promote`, unless it is the champion already."""
        current = self.pointer.current()
        if current is None or current.champion.digest != champion.digest:
            self.promote(champion, expected=current.number if current else 0)
        else:
            self.write_alias()

    def write_alias(self) -> Current:
        """The champion, once MLflow's alias shows it; rejects the version that a rollback left, as its last step.

        If the champion changes meanwhile, the alias shows the new one. Raises KcmError if there is no champion.
        """
        current = self.present()
        while True:
            set_champion(self.uri, self.model, current.champion.number)
            self._reject_left(current)
            if (now := self.present()) == current:
                return current
            current = now

    def _reject_left(self, current: Current) -> None:
        if left := current.champion.left:
            self.pointer.reject(left.digest, left.reason, left_by=current.number)

    def present(self) -> Current:
        """The champion. Raises KcmError if there is none."""
        if (current := self.pointer.current()) is None:
            raise KcmError(
                f"{self.model!r} has no champion",
                where=self.uri,
                hint="`kcm run CONFIG` makes the first one, or `kcm promote` a version",
            )
        return current


@contextmanager
def promoting(control: Control, application: str) -> Iterator[None]:
    """Hold the right to promote, so the service and the pointer change in the same order."""
    subject = f"the champion of {application!r}"
    with leased(control, f"leases/champion/{application}", subject, wait_s=PROMOTION_WAIT_S):
        yield
