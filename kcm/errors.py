"""Errors that a user can act on: the fault, its place, and the fix."""

from __future__ import annotations

import errno

from kcm.redact import redacted

MAKE_ROOM = "Free some space and start again: finished work is kept"


class KcmError(Exception):
    """Base of every user error; printed as one line, without a traceback.

    `what` states the fault with the offending value, `where` the file, field or item, `hint` the fix. Secrets in any of
    them are masked.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what, self.where, self.hint = what, where, hint
        super().__init__(what)

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        remedy = f". {self.hint}" if self.hint else ""
        return redacted(f"{self.what}{place}{remedy}")

    def __reduce__(self) -> tuple[object, ...]:  # crosses Ray's process boundaries unharmed
        return _rebuild, (type(self), self.what, self.where, self.hint)


def _rebuild(kind: type[KcmError], what: str, where: str, hint: str) -> KcmError:
    return kind(what, where=where, hint=hint)


def is_disk_full(error: BaseException | None) -> bool:
    """Whether an error or one of its causes is a full disk, which SQLite reports only in words."""
    while error is not None:
        if getattr(error, "errno", None) == errno.ENOSPC or "database or disk is full" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


class ConfigError(KcmError):
    """A configuration that cannot be used."""


class DataError(KcmError):
    """Rows, files or splits that cannot be used."""


class AssetError(KcmError):
    """Weights or data that could not be fetched or are not what their hash says."""


class ArtefactError(KcmError):
    """A stored artefact, checkpoint or bundle that is missing, damaged or of another config."""


class LockedError(KcmError):
    """Another process holds the lock."""
