"""Where the service listens, and where it is reached."""

from __future__ import annotations

import errno
import socket

from kcm.errors import KcmError
from pipelines.serve.config import ServeConfig


def require_free_address(config: ServeConfig) -> None:
    """Raise KcmError where something else on this machine listens where the proxy is to: known before a start."""
    family, kind, protocol, _, address = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has just ended does not listen
        try:
            probe.bind(address)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise address_taken(config) from None


def address_taken(config: ServeConfig) -> KcmError:
    """The error for an address at which something else listens."""
    return KcmError(
        "the address is taken", where=f"{config.host}:{config.port}", hint="Choose another with --set serve.port=PORT"
    )


def url_of(config: ServeConfig) -> str:
    """The URL of a service on this machine."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(config.host, config.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{config.port}"
