"""Authentication of Ray clusters: each local cluster has a token of its own.

A client of a cluster runs code as its owner. Ray's default writes one token into the home folder, which then changes
how every later client connects; here the token is deleted when the cluster ends.
"""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pipelines._ray_private import reread_authentication

MODE, TOKEN, TOKEN_PATH = "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"


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
def local_token() -> Iterator[None]:
    """Token authentication for the local cluster that starts in the block.

    The token is a new one, in a temporary folder of mode 700 that is deleted at the end; or the user's own, from
    RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH. A user's RAY_AUTH_MODE stays as it is.
    """
    values = {} if os.environ.get(MODE) else {MODE: "token"}
    with tempfile.TemporaryDirectory(prefix="kcm-cluster-") as folder:
        if values and not (os.environ.get(TOKEN) or os.environ.get(TOKEN_PATH)):
            file = Path(folder, "token")
            file.touch(mode=0o600)
            file.write_text(secrets.token_hex(32))
            values[TOKEN_PATH] = str(file)
        with settings(values):
            yield
