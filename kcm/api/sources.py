"""Where a bundle comes from: a folder, or a URI whose scheme a package registers as an entry point of `kcm.schemes`."""

from __future__ import annotations

from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from kcm.errors import ArtefactError, ConfigError

SCHEMES = "kcm.schemes"


def folder_of(source: str | Path) -> Path:
    """The bundle's folder, which the scheme of a URI has to fetch first.

    Raises ArtefactError where there is no such folder, ConfigError for an unknown scheme, and what fetching raises.
    """
    given = str(source)
    scheme, colon, _ = given.partition(":")
    if not colon or len(scheme) == 1 or Path(given).exists():  # one letter is a drive
        if not Path(given).is_dir():
            raise ArtefactError("no such folder", where=given, hint="Give a bundle's folder, or models:/NAME@ALIAS")
        return Path(given)
    known = {entry.name: entry for entry in entry_points(group=SCHEMES)}
    if scheme not in known:
        names = ", ".join(f"{name}:" for name in sorted(known)) or "none"
        raise ConfigError(f"unknown scheme {scheme!r}", where=given, hint=f"Give a folder; known schemes are {names}")
    fetch: Any = known[scheme].load()
    found: Path = fetch(given)
    return found
