"""A trained cascade in one folder. The import is light: commands find a bundle before they load it."""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

from kcm.errors import ArtefactError, ConfigError
from kcm.extras import naming_extra

MANIFEST = "bundle.json"


def folder_of(source: str | Path) -> Path:
    """The bundle's folder; a URI is fetched first, by a scheme that a package registers as an entry point.

    Raises ArtefactError for a missing folder, ConfigError for an unknown scheme, and the errors of fetching.
    """
    name = str(source)
    scheme, colon, _ = name.partition(":")
    if not colon or len(scheme) == 1 or os.path.exists(name):  # one letter is a drive
        if not os.path.isdir(name):
            raise ArtefactError("no such folder", where=name, hint="Give a bundle's folder, or models:/NAME@ALIAS")
        return Path(name)
    schemes = {entry.name: entry for entry in entry_points(group="kcm.schemes")}
    if scheme not in schemes:
        names = ", ".join(f"{name}:" for name in sorted(schemes)) or "none"
        raise ConfigError(f"unknown scheme {scheme!r}", where=name, hint=f"Give a folder; known schemes are {names}")
    with naming_extra(f"{scheme}:"):
        fetch: Callable[[str], Path] = schemes[scheme].load()
    return fetch(name)
