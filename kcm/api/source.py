"""Where a bundle is: the folder that a caller names, or what a registered scheme fetches. The import is light."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from kcm.errors import ArtefactError, ConfigError
from kcm.extras import naming_extra


def folder_of(source: str | Path) -> Path:
    """The bundle's folder, fetched first by the scheme of a URI, which packages register as an entry point.

    Raises ArtefactError where there is no such folder, ConfigError for an unknown scheme, and what fetching raises.
    """
    given = str(source)
    scheme, colon, _ = given.partition(":")
    if not colon or len(scheme) == 1 or os.path.exists(given):  # one letter is a drive
        if not os.path.isdir(given):
            raise ArtefactError("no such folder", where=given, hint="Give a bundle's folder, or models:/NAME@ALIAS")
        return Path(given)
    known = {entry.name: entry for entry in entry_points(group="kcm.schemes")}
    if scheme not in known:
        names = ", ".join(f"{name}:" for name in sorted(known)) or "none"
        raise ConfigError(f"unknown scheme {scheme!r}", where=given, hint=f"Give a folder; known schemes are {names}")
    with naming_extra(f"{scheme}:"):
        fetch: Callable[[str], Path] = known[scheme].load()
    return fetch(given)
