"""A Ray cluster of several nodes on this machine, each with processes and ports of its own.

`ray stop` would end every Ray of the machine, so nodes are ended by their process ids.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

MIB = 2**20
OBJECT_STORE_BYTES = 100 * MIB
START_TIMEOUT_S = 300.0  # two busy cores import Ray for a minute
RETRY_S = 0.25


@dataclass(frozen=True)
class Node:
    """A node: the process that all others of it descend from, and the port of its agent."""

    process: subprocess.Popen[bytes]
    agent_port: int

    def stop(self) -> None:
        """Kill this node as a lost machine would end, and nothing else."""
        with suppress(psutil.NoSuchProcess):
            own = psutil.Process(self.process.pid)
            processes = [own, *own.children(recursive=True)]
            for process in processes:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            psutil.wait_procs(processes, timeout=30)
        self.process.wait()

    def runs(self, title: str) -> bool:
        """Whether a process of this node has these words in its command line."""
        with suppress(psutil.NoSuchProcess):
            for process in psutil.Process(self.process.pid).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if title in " ".join(process.cmdline()):
                        return True
        return False


@dataclass(frozen=True)
class Nodes:
    """A running cluster, and the environment of its clients."""

    dashboard: str
    environment: dict[str, str]
    workers: list[Node]


@contextmanager
def nodes(folder: Path, num_workers: int, cpus: int) -> Iterator[Nodes]:
    """A head without CPUs, and workers with `cpus` each; all end with the block.

    They ask for a token, which clients have. `folder` has a short path, since sockets lie below it. Raises RuntimeError
    if a node does not start.
    """
    token = folder / "token"
    token.write_text(secrets.token_hex(32), encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "RAY_AUTH_TOKEN")}
    path = os.pathsep.join((str(Path(sys.executable).parent), environment["PATH"]))
    environment |= {"PATH": path, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    gcs, dashboard, client = free_ports(3)
    of_head = (
        *("--head", "--num-cpus=0", "--include-dashboard=true", f"--temp-dir={folder / 'h'}"),
        *(f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"),
    )
    with ExitStack() as stack:
        head = start(of_head, environment, folder / "head.log")
        stack.callback(head.stop)
        wait_until_up(head, folder / "head.log", token.read_text(encoding="utf-8"))
        workers = []
        for number in range(num_workers):
            # A folder of its own: in a common one a node deletes the working directories of another node's jobs.
            own = (f"--address=127.0.0.1:{gcs}", f"--num-cpus={cpus}", f"--temp-dir={folder / str(number)}")
            workers.append(start(own, environment, folder / f"worker_{number}.log"))
            stack.callback(workers[-1].stop)
        for number, worker in enumerate(workers):
            wait_until_up(worker, folder / f"worker_{number}.log", token.read_text(encoding="utf-8"))
        yield Nodes(f"http://127.0.0.1:{dashboard}", environment, workers)


def start(options: tuple[str, ...], environment: Mapping[str, str], log: Path) -> Node:
    """A node that begins to start."""
    agent, metrics = free_ports(2)
    command = (
        *("ray", "start", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1", *options),
        *(f"--dashboard-agent-listen-port={agent}", f"--metrics-export-port={metrics}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--object-store-memory={OBJECT_STORE_BYTES}"),
    )
    with log.open("wb") as output:
        # In a session of its own: Ctrl-C reaches the owner of the nodes, which ends them in order.
        process = subprocess.Popen(command, env=environment, stdout=output, stderr=output, start_new_session=True)
    return Node(process, agent)


def wait_until_up(node: Node, log: Path, token: str) -> None:
    """Wait for a node's agent, without which the node takes no jobs."""
    headers, until = {"Authorization": f"Bearer {token}"}, time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and node.process.poll() is None:
        with suppress(httpx.TransportError):
            url = f"http://127.0.0.1:{node.agent_port}/api/local_raylet_healthz"
            if httpx.get(url, headers=headers, timeout=5).status_code == 200:
                return
        time.sleep(RETRY_S)
    raise RuntimeError(f"a node did not start:\n{log.read_text(encoding='utf-8', errors='replace')[-2000:]}")


def free_ports(count: int) -> list[int]:
    """Ports of this machine that nobody listens on, all different, below those that systems give to connections."""
    with ExitStack() as stack:
        ports: list[int] = []
        while len(ports) < count:
            port = 20_000 + secrets.randbelow(12_000)
            with suppress(OSError):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
                ports.append(port)
        return ports
