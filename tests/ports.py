"""Ports for servers that a test starts."""

import random
import socket

# Below what systems give to outgoing connections, above what Ray's workers listen on: nobody takes one of these between
# this call and the server's start.
_FIRST, _LAST = 20_000, 32_000


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different."""
    ports: list[int] = []
    for port in random.SystemRandom().sample(range(_FIRST, _LAST), k=_LAST - _FIRST):
        if len(ports) == count:
            break
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                ports.append(port)
    return ports


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    return free_ports(1)[0]
