"""The champion of an application: a pointer changed by compare-and-swap, its history, and rejected versions.

The pointer decides: the service and the loop follow it. MLflow's alias is a copy for readers of the registry.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from kcm.config import Config
from kcm.errors import KcmError
from pipelines.registry.replicas import ReplicaReports
from pipelines.store.records import Control, Journal

REGISTER, BUNDLE = "register", "bundle"  # the stage that makes bundles, and the bundle's folder in its artefact
By = Literal["run", "update", "rollback", "promote"]


def utc_now() -> str:
    """Now, for display: nothing is ordered by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")


class ReplacedError(KcmError):
    """Another version became the champion meanwhile."""


class LeftVersion(Config):
    """A version that a rollback leaves. It is never promoted automatically again."""

    digest: str = Field(description="Digest of the bundle.")
    reason: str = Field(description="Why it is left.")


class Champion(Config):
    """A version that was promoted to champion."""

    digest: str = Field(description="Digest of the bundle.")
    version: str = Field(description="Registered version, NAME/NUMBER.")
    bundle: str = Field(description="Fingerprint of the artefact of stage `register` that holds the bundle.")
    promoted_at: str = Field(default_factory=utc_now, description="UTC time of the promotion; for display.")
    after: int = Field(0, ge=0, description="Number of the last decision in the log before the promotion.")
    parent: str | None = Field(None, description="Digest of the bundle whose training this one continues.")
    by: By = Field(description="What promoted it.")
    left: LeftVersion | None = Field(None, description="The version that it replaces, if a rollback promoted it.")

    @property
    def number(self) -> str:
        """The number of the registered version."""
        return self.version.rpartition("/")[2]


class Current(Config):
    """The champion. A promotion names `number`, the champion it replaces; replicas follow `record`."""

    champion: Champion
    number: int = Field(description="Number of the record that made it the champion.")
    record: int = Field(0, exclude=True, description="Number of the record that holds it; larger if it was restored.")


class Pointer:
    """The champion pointer of an application."""

    def __init__(self, control: Control, application: str) -> None:
        self._control, self._key = control, f"loop/{application}/champion"
        self._rejected, self._registered = (
            Journal(control, f"loop/{application}/{name}") for name in ("rejected", "registered")
        )
        self.reports = ReplicaReports(control, application)

    def current(self) -> Current | None:
        """The champion, None before the first one."""
        record = self._control.get(self._key)
        if record is None:
            return None
        return Current.model_validate_json(record.value).model_copy(update={"record": record.version})

    def swap(self, expected: int, champion: Champion) -> Current | None:
        """Replace the champion; None, and nothing changes, if the champion is not `expected`."""
        current = self.current()
        if (current.number if current else 0) != expected:
            return None
        record = current.record if current else 0
        return self._write(record, Current(champion=champion, number=record + 1))

    def require(self, number: int) -> Current:
        """The pointer as it is now. Raises ReplacedError if champion `number` is no longer the champion."""
        current = self.current()
        if current is None or current.number != number:
            version = current.champion.version if current else "no version"
            hint = "Look at `kcm versions`, and start again"
            raise ReplacedError(f"{version} became the champion meanwhile", where=self._key, hint=hint)
        return current

    def take_back(self, promotion: Current, before: Current) -> bool:
        """Undo a promotion: the previous champion is the champion again, as if it had never been replaced.

        False, and nothing changes, if the pointer has moved on.
        """
        return self._write(promotion.record, before) is not None

    def history(self) -> list[Champion]:
        """All champions in order, without promotions that were undone."""
        champions: list[Current] = []
        for version in self._control.history(self._key):
            record = Current.model_validate_json(version.value)
            while champions and champions[-1].number >= record.number:
                champions.pop()
            champions.append(record)
        return [record.champion for record in champions]

    def reject(self, digest: str, reason: str, *, upto: int | None = None, left_by: int | None = None) -> None:
        """Never promote this version automatically again, nor another from the same watermark `upto`.

        `left_by` is the number of the champion that a rollback promoted instead. The first reason stays.
        """
        key = {"digest": digest, "left_by": left_by}
        rejection = key | {"reason": reason, "upto": upto, "at": utc_now()}
        self._rejected.append(lambda _: rejection, same=lambda entry: key.items() <= entry.items())

    def is_rollback_finished(self, rollback: Current) -> bool:
        """Whether a rollback has rejected the version that it left, which it does last."""
        return any(entry["left_by"] == rollback.number for entry in self._rejected.entries())

    def register(self, candidate: Champion) -> None:
        """Record a registered version, promoted or not."""
        entry = candidate.model_dump(mode="json")
        self._registered.append(lambda _: entry, same=lambda known: bool(known["digest"] == candidate.digest))

    def registered(self) -> list[Champion]:
        """All registered versions, the oldest first."""
        return [Champion.model_validate(entry) for entry in self._registered.entries()]

    def rejected(self, digest: str, *, upto: int | None = None) -> str | None:
        """Why a version, or one from this watermark, must not be promoted automatically; None if it may."""
        for entry in self._rejected.entries():
            if entry["digest"] == digest or (upto is not None and entry["upto"] == upto):
                return str(entry["reason"])
        return None

    def rejections(self) -> list[dict[str, Any]]:
        """All rejections: digest, reason, watermark and time."""
        return self._rejected.entries()

    def _write(self, record: int, content: Current) -> Current | None:
        """The pointer after a swap of record `record`; None if another process swapped first."""
        if not self._control.swap(self._key, record, content.model_dump_json().encode()):
            return None
        return content.model_copy(update={"record": record + 1})
