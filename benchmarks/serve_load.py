"""Clients of the served cascade, in a process of their own: closed loops, and requests at a fixed rate.

HTTP/1.1 over connections that stay open. The clients share the cores with what they measure; `Load.client_cpu` tells
how much of one core they took. Latencies at a fixed rate count from the moment that a request was due, so that a
service that stalls does not hide what it made others wait.
"""

from __future__ import annotations

import asyncio
import json
import math
import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import aiohttp
import numpy as np

MAX_CONNECTIONS = 2000
JSON = {"Content-Type": "application/json"}
DRAIN_S = 40.0  # after the last request at a fixed rate was due


@dataclass(frozen=True)
class Plan:
    """The load: `clients` in closed loops or, without clients, `rate` requests per second.

    Requests carry one text each, in turn. Those that begin in the first `warm_up_s` seconds are not counted.
    """

    url: str
    texts: Sequence[str]
    seconds: float
    clients: int = 0
    rate: float = 0.0
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
        """A quantile of the latency of counted answers, of all routes or one `route`; NaN without answers."""
        wanted_N = self.counted_N & (self.status_N == 200)
        if route is not None:
            wanted_N &= self.route_N == route
        if not wanted_N.any():
            return math.nan
        return 1000 * float(np.quantile(self.latency_N[wanted_N], quantile))


def run(plan: Plan) -> Load:
    """Let the clients run, and say what they saw."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        return process.submit(_load, plan).result()


class Clients:
    """Sends requests and notes when each began, how long it took, its status and its route."""

    def __init__(self, plan: Plan, session: aiohttp.ClientSession) -> None:
        self._session, self._url = session, f"{plan.url}/v1/predict"
        self._bodies = [json.dumps({"inputs": [{"text": text}]}).encode() for text in plan.texts]
        self._number = 0
        self.seen: list[tuple[float, float, int, str]] = []

    async def ask(self, began: float) -> None:
        """Send the next request; a connection that breaks counts as status 0."""
        body = self._bodies[self._number % len(self._bodies)]
        self._number += 1
        try:
            async with self._session.post(self._url, data=body, headers=JSON) as response:
                status, answer = response.status, await response.read()
        except (aiohttp.ClientError, OSError):
            status, answer = 0, b""
        route = answer.partition(b'"route":"')[2].partition(b'"')[0].decode()
        self.seen.append((began, time.perf_counter() - began, status, route))


async def closed_loop(clients: Clients, number: int, end: float) -> None:
    """Each client sends its next request when the last one has been answered."""

    async def one() -> None:
        while (now := time.perf_counter()) < end:
            await clients.ask(now)

    await asyncio.gather(*(one() for _ in range(number)))


async def fixed_rate(clients: Clients, rate: float, end: float) -> None:
    """A request every 1 / rate seconds, whatever became of the others."""
    start, number, tasks = time.perf_counter(), 0, set[asyncio.Task[None]]()
    while (due_time := start + number / rate) < end:
        await asyncio.sleep(max(0.0, due_time - time.perf_counter()))
        if len(tasks) < MAX_CONNECTIONS:
            task = asyncio.create_task(clients.ask(due_time))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        else:
            clients.seen.append((due_time, math.nan, 0, ""))
        number += 1
    if tasks:
        _, unanswered = await asyncio.wait(tasks, timeout=DRAIN_S)
        clients.seen += [(due_time, math.nan, 0, "")] * len(unanswered)


def _load(plan: Plan) -> Load:
    return asyncio.run(_loaded(plan))


async def _loaded(plan: Plan) -> Load:
    connector, timeout = aiohttp.TCPConnector(limit=0), aiohttp.ClientTimeout(total=None)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        clients, cpu, start = Clients(plan, session), time.process_time(), time.perf_counter()
        counted_from = start + plan.warm_up_s
        end = counted_from + plan.seconds
        await (closed_loop(clients, plan.clients, end) if plan.clients else fixed_rate(clients, plan.rate, end))
        client_cpu = (time.process_time() - cpu) / (time.perf_counter() - start)
    began_N, *columns = map(np.array, zip(*clients.seen, strict=True))
    return Load(plan.seconds, began_N - counted_from, *columns, client_cpu=client_cpu)
