"""Packages by npm, as they were published; nothing of them is installed or run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kcm.assets.client import run_client, verified
from kcm.errors import AssetError


@dataclass(frozen=True)
class NpmPackage:
    """One package of the npm registry, pinned by version and by the hash of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def source(self) -> str:
        """The package, for messages."""
        return f"{self.name}@{self.version}"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's .tgz below `folder`, downloaded unless it already lies there with the right hash.

        Raises AssetError when npm is not installed, fails, takes longer than `timeout` seconds, or brings another file.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if found := verified(home, self.sha256):
            return found
        command = ["npm", "pack", "--loglevel=error", "--pack-destination", str(home), "--ignore-scripts", self.source]
        run_client(command, client="npm", where=self.name, timeout=timeout)
        if found := verified(home, self.sha256):
            return found
        raise AssetError(f"npm brought no file with sha256 {self.sha256}", where=self.name)
