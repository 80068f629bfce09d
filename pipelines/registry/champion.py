"""The champion of an application: a pointer that is swapped, with its history, and the versions it must not go to.

The pointer is the truth. MLflow's alias is its mirror, written after it; `mirrored` tells an alias that a crash left
behind from one that somebody has moved.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import Field

from kcm.config import Config
from pipelines.store.control.journal import Journal
from pipelines.store.control.records import Control

By = Literal["run", "update", "rollback", "promote"]


class Champion(Config):
    """A version that was made the champion."""

    digest: str = Field(description="Digest of the bundle.")
    version: str = Field(description="Registered version, NAME/NUMBER.")
    bundle: str = Field(description="Fingerprint of the artefact of stage `register` that holds the bundle.")
    promoted_at: str = Field(description="UTC time of the promotion; for display.")
    after: int = Field(0, ge=0, description="Number of the last decision in the log before the promotion.")
    parent: str | None = Field(None, description="Digest of the bundle whose training this one continues.")
    by: By = Field(description="What promoted it.")

    @property
    def number(self) -> str:
        """The number of the registered version."""
        return self.version.rpartition("/")[2]


@dataclass(frozen=True)
class Current:
    """The champion, and how many came before it, itself included: what a swap has to name."""

    number: int
    champion: Champion


class Pointer:
    """The champion pointer of an application."""

    def __init__(self, control: Control, application: str) -> None:
        self._control, self._key = control, f"loop/{application}/champion"
        self._mirrored, self._rejected = (
            Journal(control, f"loop/{application}/{name}") for name in ("mirrored", "rejected")
        )

    def current(self) -> Current | None:
        """The champion, None before the first one."""
        held = self._control.get(self._key)
        return None if held is None else Current(held.version, Champion.model_validate_json(held.value))

    def swap(self, expected: int, champion: Champion) -> bool:
        """Make another the champion; False, and nothing is changed, where it is no longer number `expected`."""
        return self._control.swap(self._key, expected, champion.model_dump_json().encode())

    def history(self) -> list[Champion]:
        """All champions, the first one first."""
        return [Champion.model_validate_json(each.value) for each in self._control.history(self._key)]

    def mark_mirrored(self, number: int) -> None:
        """Remember that MLflow's alias shows champion `number`."""
        self._mirrored.append(lambda _: {"number": number}, same=lambda each: bool(each["number"] == number))

    def is_mirrored(self, number: int) -> bool:
        """Whether MLflow's alias was made to show champion `number`."""
        return any(each["number"] == number for each in self._mirrored.entries())

    def reject(self, digest: str, reason: str, *, upto: int | None = None) -> None:
        """Never promote a version by itself again, nor another from the same watermark `upto`."""
        entry = {"digest": digest, "reason": reason, "upto": upto, "at": utc_now()}
        self._rejected.append(lambda _: entry, same=lambda each: bool(each["digest"] == digest))

    def rejected(self, digest: str, *, upto: int | None = None) -> str | None:
        """Why a version, or one from this watermark, must not be promoted by itself; None where it may."""
        for each in self._rejected.entries():
            if each["digest"] == digest or (upto is not None and each["upto"] == upto):
                return str(each["reason"])
        return None

    def rejections(self) -> list[dict[str, Any]]:
        """All rejections: digest, reason, watermark and time."""
        return self._rejected.entries()


def utc_now() -> str:
    """Now, for display: nothing is ordered by it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
