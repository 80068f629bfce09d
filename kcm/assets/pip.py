"""Packages of the index that pip is configured with: wheels and source archives, pinned by version and hash.

Wheels are downloaded by pip. Source archives are not: pip would build them, with code that no hash covers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from kcm.assets import index
from kcm.assets.client import run_client, verified
from kcm.errors import AssetError


@dataclass(frozen=True)
class PipPackage:
    """One file of a Python package index: a wheel, or a source distribution where `from_source`."""

    name: str
    version: str
    sha256: str
    from_source: bool = False

    @property
    def source(self) -> str:
        """The package, for messages."""
        return f"{self.name}=={self.version}"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's file below `folder`, downloaded unless it already lies there with the right hash.

        The hash is compared before the file is so much as opened. Raises AssetError with the last words of pip or of
        the index when it fails, or when it takes longer than `timeout` seconds.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if found := verified(home, self.sha256):
            return found
        if self.from_source:
            archive = home / f"{self.name}-{self.version}.source"
            index.download(self.name, self.version, self.sha256, archive, timeout=timeout)
            return archive
        requirements = folder / f"{self.name}.txt"
        requirements.write_text(f"{self.source} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command = [*pip, "--only-binary", ":all:", *quiet, "-d", str(home), "-r", str(requirements)]
        run_client(command, client="pip", where=self.name, timeout=timeout)
        if found := verified(home, self.sha256):
            return found
        raise AssetError(f"pip brought no file with sha256 {self.sha256}", where=self.name)
