"""The paths that a bundle may open: the bundle itself, the assets, the hub's cache, and paths named by a person.

A person names a path in a configuration, or in KCM_TRUSTED_PLACES. Paths in configurations are recorded in the assets,
so that other processes may open them for the bundle of the run.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Self

from kcm.errors import AssetError

TRUSTED_PLACES = "KCM_TRUSTED_PLACES"  # environment variable: paths that bundles may name, separated by colons
_NAMED = ".places"  # file in the assets folder, one path per line
_NAMED_HERE: set[str] = set()  # paths named in this process


class BundleName(str):
    """The name of a model or a file in the bundle in `folder`; it equals the same name given by a person."""

    folder: Path

    def __new__(cls, name: str, folder: Path) -> Self:
        place = super().__new__(cls, name)
        place.folder = folder
        return place

    def __getnewargs__(self) -> tuple[str, Path]:  # type: ignore[override]  # str's own would lose the folder
        return str(self), self.folder

    @property
    def lies_within(self) -> bool:
        """Whether it is a path into the bundle."""
        return Path(self).is_absolute() and _is_below(Path(self), self.folder)


def may_open(name: str, assets_dir: Path) -> bool:
    """Whether the path `name` may be opened. A name given by a person is recorded for later bundles."""
    path = Path(name).expanduser().resolve()
    if not isinstance(name, BundleName):
        _write_down(path, assets_dir)
        return True
    return name.lies_within or _is_below(path, assets_dir) or str(path) in _configured_paths(assets_dir)


def require_may_open(name: str, assets_dir: Path) -> None:
    """Raise AssetError for a path that only a bundle names, and no person."""
    if not may_open(name, assets_dir):
        raise AssetError(
            f"the bundle names the path {name!r}, which is not trusted here",
            hint=f"If you trust it, set {TRUSTED_PLACES}={Path(name).absolute()}",
        )


def _write_down(path: Path, assets_dir: Path) -> None:
    is_new = not (_is_below(path, assets_dir) or str(path) in _configured_paths(assets_dir))
    _NAMED_HERE.add(str(path))
    if not is_new:
        return
    with suppress(OSError), (assets_dir / _NAMED).open("a", encoding="utf-8") as file:  # assets may be read-only
        file.write(f"{path}\n")


def _configured_paths(assets_dir: Path) -> set[str]:
    with suppress(OSError, ValueError):
        return {*_trusted_paths(), *(assets_dir / _NAMED).read_text(encoding="utf-8").splitlines()}
    return _trusted_paths()


def _trusted_paths() -> set[str]:
    return _NAMED_HERE | {path for path in os.environ.get(TRUSTED_PLACES, "").split(os.pathsep) if path}


def _is_below(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
