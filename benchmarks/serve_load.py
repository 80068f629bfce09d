"""Clients of the served cascade, in a process of their own: closed loops, and requests at a fixed rate.

HTTP/1.1 over connections that stay open, with as little work per request as can be, since the clients share the cores
with what they measure; `Load.client_cpu` tells how much of one core they took. Latencies at a fixed rate count from the
moment that a request was due, so that a service that stalls does not hide what it made others wait.
"""

from __future__ import annotations

import asyncio
import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

MAX_CONNECTIONS = 2000
DRAIN_S = 40.0  # after the last request at a fixed rate was due


@dataclass(frozen=True)
class Plan:
    """What the clients do: `clients` in closed loops or, where there are none, `rate` requests per second.

    Requests carry one text each, in turn. Those that begin in the first `warm_up_s` seconds are not counted.
    """

    url: str
    texts: Sequence[str]
    seconds: float
    clients: int = 0
    rate: float = 0.0
    path: str = "/v1/predict"
    warm_up_s: float = 3.0


@dataclass(frozen=True)
class Load:
    """What became of the requests; `began_N` counts from the end of the warm-up, a latency of NaN never ended.

    `route_N` is `small`, `large` or another; a status of 0 is a connection that broke. `client_cpu` is the share of a
    core that the clients took, `served_cpu_s` the CPU seconds of all processes behind the address.
    """

    seconds: float
    began_N: np.ndarray
    latency_N: np.ndarray
    status_N: np.ndarray
    route_N: np.ndarray
    client_cpu: float
    served_cpu_s: float = 0.0

    @property
    def cpu_ms(self) -> float:
        """CPU milliseconds of the service for an answer; what else the machine does leaves them alone."""
        return 1000 * self.served_cpu_s / max(1, int((self.status_N == 200).sum()))

    @property
    def counted_N(self) -> np.ndarray:
        """Which requests began after the warm-up."""
        return self.began_N >= 0

    @property
    def per_second(self) -> float:
        """Answers per second that came between the end of the warm-up and the end of the load."""
        ended_N = self.began_N + self.latency_N
        return float(((self.status_N == 200) & (ended_N >= 0) & (ended_N < self.seconds)).sum()) / self.seconds

    def share(self, status: int) -> float:
        """Share of the counted requests that ended in this status."""
        return float((self.status_N[self.counted_N] == status).mean())

    def route_share(self, route: str) -> float:
        """Share of the counted answers that took this route."""
        return float((self.route_N[self.counted_N & (self.status_N == 200)] == route).mean())

    def milliseconds(self, quantile: float, route: str | None = None) -> float:
        """A quantile of the latency of counted answers, of one route alone where it is named; NaN without any."""
        wanted_N = self.counted_N & (self.status_N == 200)
        if route is not None:
            wanted_N &= self.route_N == route
        if not wanted_N.any():
            return math.nan
        return 1000 * float(np.quantile(self.latency_N[wanted_N], quantile))


def run(plan: Plan) -> Load:
    """Let the clients run, and say what they saw."""
    answer = subprocess.run(
        [sys.executable, __file__], input=json.dumps(asdict(plan)), capture_output=True, text=True, check=False
    )
    if answer.returncode:
        raise RuntimeError(f"the clients failed: {answer.stderr[-2000:]}")
    figures = json.loads(answer.stdout)
    columns = {name: np.array(figures[name]) for name in ("began_N", "latency_N", "status_N", "route_N")}
    return Load(seconds=plan.seconds, client_cpu=figures["client_cpu"], **columns)


class Connection(asyncio.Protocol):
    """One connection that carries one request after the other."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None
        self._is_last = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    @property
    def is_open(self) -> bool:
        """Whether a request can still be sent; an answer may have said that it is the connection's last."""
        return self._transport is not None and not self._transport.is_closing() and not self._is_last

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer."""
        assert self._transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        head, blank, body = bytes(self._buffer).partition(b"\r\n\r\n")
        if not blank:
            return
        if _is_whole(head.lower(), body) and self._answer and not self._answer.done():
            self._buffer.clear()
            self._is_last = b"connection: close" in head.lower()
            self._answer.set_result((int(head[9:12]), body))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(ConnectionError(str(error)))


def _is_whole(head: bytes, body: bytes) -> bool:
    if b"transfer-encoding: chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    return len(body) >= int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0] or 0)


class Clients:
    """Sends requests and notes when each began, how long it took, its status and its route."""

    def __init__(self, plan: Plan) -> None:
        place = urlsplit(plan.url)
        self._address = (place.hostname or "", place.port or 80)
        self._requests = [_request(plan.path, place.netloc, text) for text in plan.texts]
        self._idle: list[Connection] = []
        self._number = 0
        self.seen: list[tuple[float, float, int, str]] = []

    async def ask(self, began: float) -> None:
        """Send the next request; a connection that breaks counts as status 0."""
        request = self._requests[self._number % len(self._requests)]
        self._number += 1
        try:
            connection = await self._connected()
            status, body = await connection.ask(request)
            self._idle.append(connection)
        except OSError:
            status, body = 0, b""
        route = body.partition(b'"route":"')[2].partition(b'"')[0].decode()
        self.seen.append((began, time.perf_counter() - began, status, route))

    async def _connected(self) -> Connection:
        """An idle connection that the server has not closed, or a new one."""
        while self._idle:
            if (connection := self._idle.pop()).is_open:
                return connection
        _, connection = await asyncio.get_running_loop().create_connection(Connection, *self._address)
        return connection


def _request(path: str, host: str, text: str) -> bytes:
    body = json.dumps({"inputs": [{"text": text}]}).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def closed_loop(clients: Clients, number: int, end: float) -> None:
    """Each client sends its next request when the last one has been answered."""

    async def one() -> None:
        while (now := time.perf_counter()) < end:
            await clients.ask(now)

    await asyncio.gather(*(one() for _ in range(number)))


async def fixed_rate(clients: Clients, rate: float, end: float) -> None:
    """A request every 1 / rate seconds, whatever became of the others."""
    start, number, waiting = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (due := start + number / rate) < end:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if len(waiting) < MAX_CONNECTIONS:
            task = asyncio.create_task(clients.ask(due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        else:
            clients.seen.append((due, math.nan, 0, ""))
        number += 1
    if waiting:
        _, unanswered = await asyncio.wait(waiting, timeout=DRAIN_S)
        clients.seen += [(due, math.nan, 0, "")] * len(unanswered)


async def _run(plan: Plan) -> dict[str, object]:
    clients, cpu, start = Clients(plan), time.process_time(), time.perf_counter()
    counted_from = start + plan.warm_up_s
    end = counted_from + plan.seconds
    await (closed_loop(clients, plan.clients, end) if plan.clients else fixed_rate(clients, plan.rate, end))
    wall = time.perf_counter() - start
    began_N, latency_N, status_N, route_N = zip(*clients.seen, strict=True)
    return {
        "began_N": [began - counted_from for began in began_N],
        "latency_N": latency_N,
        "status_N": status_N,
        "route_N": route_N,
        "client_cpu": (time.process_time() - cpu) / wall,
    }


def main() -> None:
    """Read a plan, follow it, write what was seen."""
    values = json.loads(Path("/dev/stdin").read_text(encoding="utf-8"))
    sys.stdout.write(json.dumps(asyncio.run(_run(Plan(**values)))))


if __name__ == "__main__":
    main()
