"""Source archives of a Python package index, as files: pip itself would build them, and so run their code.

Indexes come from pip's own configuration; pages are those of the simple repository API (PEP 503, PEP 691).
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import urldefrag, urljoin, urlsplit

import httpx

from jobs.assets.extract import MAX_BYTES
from kcm.errors import AssetError

_ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
_SETTING = re.compile(r"^(\S+)\.([a-z-]+)=(.*)$", re.MULTILINE)
_DEFAULT_INDEX = re.compile(r"--index-url <url>.*?\(default (\S+?)\)", re.DOTALL)


@dataclass(frozen=True)
class PipSettings:
    """Where pip looks for packages: URLs of indexes, local folders, and the file of certificates that it trusts."""

    indexes: tuple[str, ...]
    folders: tuple[Path, ...]
    certificates: str | None

    @classmethod
    def read(cls, timeout: float) -> PipSettings:
        """The settings of files and environment. Raises AssetError where pip does not say."""
        values: dict[str, str] = {}
        found = _SETTING.findall(_pip(["config", "list"], timeout))
        for scope in ("global", "download", ":env:"):  # the later wins, as in pip
            values |= {name: str(ast.literal_eval(value)) for section, name, value in found if section == scope}
        links = [link for link in values.get("find-links", "").split() if "://" not in link]
        indexes = [values.get("index-url") or _default_index(timeout), *values.get("extra-index-url", "").split()]
        without = values.get("no-index", "0").lower() in ("1", "true", "yes", "on")
        return cls(() if without else tuple(indexes), tuple(map(Path, links)), values.get("cert"))


def download(name: str, version: str, sha256: str, target: Path, *, timeout: float) -> None:
    """Write the source archive with this hash into the file `target`; nothing of it is opened, built or run.

    Raises AssetError where no configured index or folder has it, or it does not arrive within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    settings = PipSettings.read(timeout)
    for folder in settings.folders:
        for path in sorted(folder.glob("*")):
            if _is_archive(path.name, name, version) and _save(_read(path), sha256, target, deadline, name):
                return
    faults = []
    verify = ssl.create_default_context(cafile=settings.certificates) if settings.certificates else True
    with httpx.Client(follow_redirects=True, timeout=min(timeout, 60.0), verify=verify) as client:
        for index in settings.indexes:
            try:
                for url in _archives(client, index, name, version, sha256):
                    with client.stream("GET", url) as response:
                        response.raise_for_status()
                        if _save(response.iter_bytes(), sha256, target, deadline, name):
                            return
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                faults.append(f"{type(error).__name__}: {' '.join(str(error).split())}")
    reason = "; ".join(faults) or f"no index or folder of pip's has a source archive with sha256 {sha256}"
    raise AssetError(f"{name}=={version}: {reason}", where=name)


def _archives(client: httpx.Client, index: str, name: str, version: str, sha256: str) -> Iterator[str]:
    """URLs of the source archives of a version that may have this hash."""
    response = client.get(f"{index.rstrip('/')}/{_normal(name)}/", headers={"accept": _ACCEPT})
    response.raise_for_status()
    if "json" in response.headers.get("content-type", ""):
        files = [(each["url"], each["filename"], each["hashes"].get("sha256")) for each in response.json()["files"]]
    else:
        page = _Links()
        page.feed(response.text)
        files = []
        for link in page.links:
            url, fragment = urldefrag(link)
            files.append((url, urlsplit(url).path.rpartition("/")[2], fragment.removeprefix("sha256=") or None))
    for url, filename, stated in files:
        if _is_archive(filename, name, version) and stated in (sha256, None):
            yield urljoin(str(response.url), url)


def _save(blocks: Iterator[bytes], sha256: str, target: Path, deadline: float, name: str) -> bool:
    """Write the file under its name if the content has the hash; whether it had."""
    draft, digest, size = target.with_name(f".{target.name}.{os.getpid()}"), hashlib.sha256(), 0
    try:
        with draft.open("wb") as file:
            for block in blocks:
                digest.update(block)
                size += len(block)
                if size > MAX_BYTES or time.monotonic() > deadline:
                    raise AssetError("the source archive is too large, or takes too long", where=name)
                file.write(block)
        if digest.hexdigest() != sha256:
            return False
        draft.replace(target)
        return True
    finally:
        draft.unlink(missing_ok=True)


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(2**20):
            yield block


def _is_archive(filename: str, name: str, version: str) -> bool:
    return _normal(filename) in (_normal(f"{name}-{version}.tar.gz"), _normal(f"{name}-{version}.zip"))


def _normal(name: str) -> str:
    """A name in the normal form of index URLs (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keep the target of a link."""
        if tag == "a" and (link := dict(attrs).get("href")):
            self.links.append(link)


def _default_index(timeout: float) -> str:
    """The index that pip asks where none is configured, from pip's help."""
    if found := _DEFAULT_INDEX.search(_pip(["download", "--help"], timeout)):
        return found[1]
    raise AssetError("pip does not say which index it asks", where="pip download --help", hint="Set PIP_INDEX_URL")


def _pip(arguments: list[str], timeout: float) -> str:
    command = [sys.executable, "-m", "pip", *arguments, "--disable-pip-version-check"]
    wide = {**os.environ, "COLUMNS": "1000"}  # so that no URL is broken over lines
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True, env=wide)
    except (OSError, subprocess.SubprocessError) as error:
        raise AssetError(f"pip does not tell its settings: {type(error).__name__}", where="pip config list") from None
    return done.stdout
