"""Packages by pip: wheels and source distributions, pinned by version and hash."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

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

        pip itself compares the hash before it so much as opens the file. Raises AssetError with pip's last words when
        it fails, or when it takes longer than `timeout` seconds.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if found := verified(home, self.sha256):
            return found
        requirements = folder / f"{self.name}.txt"
        requirements.write_text(f"{self.source} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        form = ["--no-binary", self.name] if self.from_source else ["--only-binary", ":all:"]
        quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes"]
        command = [*pip, *form, *quiet, "-d", str(home), "-r", str(requirements)]
        run_client(command, client="pip", where=self.name, timeout=timeout)
        if found := verified(home, self.sha256):
            return found
        raise AssetError(f"pip brought no file with sha256 {self.sha256}", where=self.name)
