"""Authentication of Ray clusters: a token for each local cluster, and where the owner's other commands find it.

A client of a cluster runs code as its owner. Ray's default writes one token into the home folder, which then changes
how every later client connects; here each local cluster has a token of its own, deleted at its end.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipelines._ray_private import reread_authentication

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"
_ADDRESS_FILE, _TOKEN_FILE = "address", "token"


@contextmanager
def settings(values: Mapping[str, str]) -> Iterator[None]:
    """Set these environment variables of Ray's authentication within the block."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    reread_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        reread_authentication()


@contextmanager
def local_token(folder: Path | None) -> Iterator[Path]:
    """Token authentication for the local cluster that starts in the block; yields the cluster's folder.

    The token is a new one, in `folder` or in a temporary folder of mode 700, deleted at the end; or the user's own,
    from RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. A user's RAY_AUTH_MODE stays as it is.
    """
    folder = _private(folder)
    values = {} if os.environ.get(MODE) else {MODE: "token"}
    try:
        if values and not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
            values[TOKEN_PATH] = str(folder / _TOKEN_FILE)
            with open(os.open(values[TOKEN_PATH], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(32))
        with settings(values):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _private(folder: Path | None) -> Path:
    """An empty folder of mode 700; leftovers of a killed process are removed."""
    if folder is None:
        return Path(tempfile.mkdtemp(prefix="kcm-cluster-"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700)
    return folder


@dataclass(frozen=True)
class LocalCluster:
    """A running local cluster, as another command of its owner finds it."""

    address: str
    authentication: Mapping[str, str]  # settings to enter it; none where they are the person's own


def write_address(folder: Path, address: str) -> None:
    """Write the cluster's address beside the token."""
    (folder / _ADDRESS_FILE).write_text(address, encoding="utf-8")


def find_cluster(folder: Path) -> LocalCluster | None:
    """The local cluster that `folder` belongs to; None where there is none."""
    try:
        address = (folder / _ADDRESS_FILE).read_text(encoding="utf-8")
    except OSError:
        return None
    token_file = folder / _TOKEN_FILE
    return LocalCluster(address, {MODE: "token", TOKEN_PATH: str(token_file)} if token_file.exists() else {})
