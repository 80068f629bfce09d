"""Ports for servers that a test starts."""

import os
import random
import socket

# Below what systems give to outgoing connections, above what Ray's workers listen on: nobody takes one of these between
# this call and the server's start. Of test sessions at once each has ports of its own, and gives none twice.
_FIRST, _LAST = 20_000, 32_000
_SESSION = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_NUM_SESSIONS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_given: set[int] = set()


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different."""
    ports: list[int] = []
    own = range(_FIRST + _SESSION, _LAST, _NUM_SESSIONS)
    for port in random.SystemRandom().sample(own, k=len(own)):
        if len(ports) == count:
            break
        with socket.socket() as probe:
            if port not in _given and probe.connect_ex(("127.0.0.1", port)):
                ports.append(port)
    _given.update(ports)
    return ports


def free_port() -> int:
    """A port of this machine that nobody listens on."""
    return free_ports(1)[0]
