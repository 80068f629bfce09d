"""Packages by apt-get, downloaded and never installed, so that no rights are needed.

A Debian archive offers one version at a time, which cannot be pinned ahead. apt-get holds what it downloads against the
hashes of the archive's signed index; a version that is known here must have the known hash besides, and the asset's
manifest records the hash of any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from kcm.assets.client import run_client, verified
from kcm.assets.digest import sha256_of
from kcm.errors import AssetError


@dataclass(frozen=True)
class DebianPackage:
    """A package of the Debian archive. `sha256` holds the hashes of the versions that are known."""

    name: str
    sha256: Mapping[str, str]

    @property
    def source(self) -> str:
        """The package, for messages."""
        return f"{self.name} of Debian"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's .deb below `folder`, downloaded unless a known version already lies there.

        Raises AssetError when apt-get is not installed, knows no such package, takes longer than `timeout` seconds, or
        brings a known version with another hash.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        for sha256 in self.sha256.values():
            if found := verified(home, sha256):
                return found
        command = ["apt-get", "download", "-qq", self.name]
        try:
            run_client(command, client="apt-get", where=self.name, timeout=timeout, folder=home)
        except AssetError as error:
            raise AssetError(f"{error.what} (`apt-get update` renews its index)", where=self.name) from None
        files = sorted(home.glob(f"{self.name}_*.deb"), key=lambda path: path.stat().st_mtime)
        if not files:
            raise AssetError("apt-get brought no .deb file", where=self.name)
        version = unquote(files[-1].name.split("_")[1])  # apt-get writes the colon of an epoch as %3a
        expected, found_hash = self.sha256.get(version), sha256_of(files[-1])
        if expected and found_hash != expected:
            raise AssetError(f"version {version} has sha256 {found_hash}, expected {expected}", where=self.name)
        return files[-1]
