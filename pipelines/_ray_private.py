"""All uses of private parts of Ray, each with the public way that was tried and its gap.

Each use has a test that fails when a new version of Ray changes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants
from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]


@contextmanager
def loopback_kept() -> Iterator[None]:
    """Make Ray leave 127.0.0.1 unchanged within the block.

    `ray.init(_node_ip_address="127.0.0.1")` replaces it by the machine's outward address. All processes of a local
    cluster then listen on all interfaces, some of them without a token. The switch RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER=0
    is read once, when Ray is imported, and would also apply to existing clusters.
    """
    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


def reread_authentication() -> None:
    """Let Ray see the environment's authentication settings.

    RAY_AUTH_MODE and RAY_AUTH_TOKEN_PATH are read once, when Ray is imported, and `ray.init` has no argument for
    either. Without them Ray writes one token into the home folder, for all clusters of the user.
    """
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
