"""Attacks on a served HTTP replica: the cost of each, the promise about it, and the latency of other callers meanwhile.

    python benchmarks/attacks.py [--only WORDS]

Every replica is served on this machine as `kcm serve` would, around stubs that compute next to nothing; its large
model asks a server of this script. An attack that weighs by its CPU is played while all is quiet, then again beside
innocent requests; the others at once. No replica may block for more than 50 ms, no attack cost more than ten normal
requests of its size. No request of others may fail or take more than a second, and no proxy of Ray Serve may be
replaced.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from itertools import groupby
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.attacks_played import ATTACKS, Attack, Client, innocent
from benchmarks.attacks_served import KEYS, Target, target
from benchmarks.script import options

MAX_BLOCK_MS, MAX_WAIT_S = 50.0, 1.0
NUM_INNOCENTS, PAUSE_S = 2, 0.05
ELSEWHERE = "127.0.0.2"  # another address than the attacker's


class Innocents:
    """Clients in processes of their own that ask what anybody might, again and again, until the attack is over."""

    def __init__(self, url: str, body: dict[str, Any]) -> None:
        self.statuses: Counter[int] = Counter()
        self.seconds: list[float] = []
        # The attacker opens a thousand connections in this process, and its threads would wait for it, not for the
        # replica.
        spawn = get_context("spawn")
        ends = [spawn.Pipe() for _ in range(NUM_INNOCENTS)]
        self._processes = [spawn.Process(target=ask, args=(url, body, theirs)) for _, theirs in ends]
        self._ends = [ours for ours, _ in ends]

    def __enter__(self) -> Innocents:
        for process in self._processes:
            process.start()
        for end in self._ends:
            end.recv()  # it has been answered once
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)  # requests that waited behind the attack are also answered
        for end in self._ends:
            end.send("done")
        for end, process in zip(self._ends, self._processes, strict=True):
            statuses, seconds = end.recv()
            self.statuses += statuses
            self.seconds += seconds
            process.join()

    @property
    def num_failed(self) -> int:
        """Requests without an answer."""
        return self.statuses.total() - self.statuses[200]

    @property
    def summary(self) -> str:
        """The number of failures, and the waiting times."""
        p50, p99, longest = 1000 * np.quantile(self.seconds, [0.5, 0.99, 1])
        return f"{self.num_failed} of {self.statuses.total()} failed, {p50:.0f}/{p99:.0f}/{longest:.0f} ms"


def ask(url: str, body: dict[str, Any], end: Connection) -> None:
    """Ask until `end` says that all is done, then send how many were answered with which status, and the seconds."""
    statuses: Counter[int] = Counter()
    seconds: list[float] = []
    from_elsewhere = httpx.HTTPTransport(local_address=ELSEWHERE)
    headers = {"authorization": f"Bearer {KEYS['eve']}"}
    with httpx.Client(headers=headers, timeout=60.0, transport=from_elsewhere) as http:
        while True:
            started = time.perf_counter()
            try:
                statuses[http.post(f"{url}/v1/predict", json=body).status_code] += 1
            except httpx.HTTPError:
                statuses[0] += 1
            seconds.append(time.perf_counter() - started)
            if len(seconds) == 1:
                end.send("begun")
            if end.poll(PAUSE_S):
                break
    end.send((statuses, seconds))


def proxies() -> set[int]:
    """The process ids of Ray Serve's proxies on this machine."""
    return {
        each.pid for each in psutil.process_iter(["cmdline"]) if "ProxyActor" in " ".join(each.info["cmdline"] or ())
    }


def play(attack: Attack, served: Target) -> list[str]:
    """A row of the table."""
    own_proxies = proxies()

    def by_client(call: Callable[[Client], Awaitable[Any]]) -> Any:
        async def called() -> Any:
            async with httpx.AsyncClient(timeout=130.0, limits=httpx.Limits(max_connections=200)) as http:
                return await call(Client(served, http))

        return asyncio.run(called())

    weighed = by_client(attack.play) if attack.weighs else None
    by_client(lambda client: client.measured(begin=True))
    with Innocents(served.url, innocent(attack.kind)) as innocents:
        time.sleep(0.5)
        outcome = by_client(attack.play)
    blocks = by_client(Client.measured)["block_ms"]
    outcome = weighed or outcome
    ratio = "-"
    if outcome.cpu_ms is not None and outcome.normal_cpu_ms is not None:
        ratio = f"{outcome.cpu_ms:.0f}/{outcome.normal_cpu_ms:.0f} = {outcome.cpu_ms / outcome.normal_cpu_ms:.1f}x"
    is_held = outcome.held and blocks <= MAX_BLOCK_MS
    is_held = is_held and not innocents.num_failed and max(innocents.seconds) <= MAX_WAIT_S and proxies() == own_proxies
    return [attack.name, "yes" if is_held else "NO", f"{blocks:.0f}", ratio, innocents.summary, outcome.seen]


def attacks(only: str) -> bool:
    """Play all attacks with these words in their names, and print what became of each; whether all promises held."""
    print("attack", "held", "block ms", "CPU ms, normal", "others, p50/p99/longest", "seen", sep=" | ")
    attacks_to_play = [attack for attack in ATTACKS if only in attack.name]
    rows: list[list[str]] = []
    for kind, of_kind in groupby(
        sorted(attacks_to_play, key=lambda attack: attack.kind), key=lambda attack: attack.kind
    ):
        with target(kind) as served:
            for attack in of_kind:
                rows.append(play(attack, served))
                print(*rows[-1], sep=" | ")
    return all(row[1] == "yes" for row in rows)


def main() -> None:
    """Attack, print, and fail where a promise does not hold."""
    parser = options(__doc__)
    parser.add_argument("--only", default="", help="words in the name of the attacks to play; all without them")
    sys.exit(0 if attacks(parser.parse_args().only) else 1)


if __name__ == "__main__":
    main()
