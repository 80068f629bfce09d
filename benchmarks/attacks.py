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
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import httpx
import numpy as np
import psutil

from benchmarks.attacks_played import ATTACKS, Attack, Client, innocent
from benchmarks.attacks_served import KEYS, Target, target
from benchmarks.script import options

MAX_BLOCK_MS, MAX_WAIT_S = 50.0, 1.0
NUM_INNOCENTS, PAUSE_S = 2, 0.05


@dataclass
class Innocents:
    """Clients in threads of their own that ask what anybody might, again and again."""

    target: Target
    body: dict[str, Any]
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def __enter__(self) -> Innocents:
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(NUM_INNOCENTS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)  # requests that waited behind the attack are also answered
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def num_failed(self) -> int:
        """Requests without an answer."""
        return self.statuses.total() - self.statuses[200]

    @property
    def summary(self) -> str:
        """The number of failures, and the waiting times."""
        p50, p99, longest = 1000 * np.quantile(self.seconds, [0.5, 0.99, 1])
        return f"{self.num_failed} of {self.statuses.total()} failed, {p50:.0f}/{p99:.0f}/{longest:.0f} ms"

    def _ask(self) -> None:
        with httpx.Client(headers={"authorization": f"Bearer {KEYS['eve']}"}, timeout=60.0) as http:
            while not self._done.wait(PAUSE_S):
                started = time.perf_counter()
                try:
                    self.statuses[http.post(f"{self.target.url}/v1/predict", json=self.body).status_code] += 1
                except httpx.HTTPError:
                    self.statuses[0] += 1
                self.seconds.append(time.perf_counter() - started)


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
    with Innocents(served, innocent(attack.kind)) as innocents:
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
