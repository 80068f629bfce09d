"""Requests to a service at a constant rate from one machine, each tried again once at another door.

python -m benchmarks.hosts_load INPUTS URL...     # until its input is closed; prints one line of JSON

The right answers are those of the first call, which are kept in the file RIGHT.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Any

import httpx

RATE = 12.0  # requests a second
TIMEOUT_S = 10.0  # of each try
RIGHT = Path("right.json")


async def ask(client: httpx.AsyncClient, url: str, item: Any) -> dict[str, Any] | None:
    """The answer to an item; None where there is none."""
    try:
        response = await client.post(f"{url}/v1/predict", json={"inputs": [item]})
        answer: dict[str, Any] = response.raise_for_status().json()["answers"][0]
    except (httpx.HTTPError, ValueError, LookupError):
        return None
    return answer


async def load(items: list[Any], urls: list[str]) -> dict[str, float]:
    """Shares of requests that were answered at the first try and at all, and how many answers were wrong.

    An answer that says that it is degraded is none of the large model, and not wrong.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=500)) as client:
        right = await right_answers(client, items, urls[0])
        found: Counter[str] = Counter()

        async def one(number: int) -> None:
            item = number % len(items)
            found["requests"] += 1
            answer = await ask(client, urls[number % len(urls)], items[item])
            found["first"] += answer is not None
            if answer is None:
                answer = await ask(client, urls[(number + 1) % len(urls)], items[item])
            found["answered"] += answer is not None
            found["wrong"] += answer is not None and not answer.get("degraded") and answer["label"] != right[item]

        print("ready", file=sys.stderr, flush=True)
        started, tasks = time.monotonic(), set[asyncio.Task[None]]()
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        for number in count():
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))
            if ended.done():
                break
            tasks.add(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
    shares = {name: found[name] / found["requests"] for name in ("first", "answered")}
    return shares | {"wrong": found["wrong"], "requests": found["requests"]}


async def right_answers(client: httpx.AsyncClient, items: list[Any], url: str) -> list[str]:
    """The labels of the items, from the file where it exists; RuntimeError where the door does not answer."""
    if RIGHT.exists():
        labels: list[str] = json.loads(RIGHT.read_text())
        return labels
    answers = [await ask(client, url, item) for item in items]
    labels = [answer["label"] for answer in answers if answer is not None and not answer.get("degraded")]
    if len(labels) < len(items):
        raise RuntimeError(f"{url} answers {len(labels)} of {len(items)} before any fault")
    RIGHT.write_text(json.dumps(labels))
    return labels


if __name__ == "__main__":
    inputs, *addresses = sys.argv[1:]
    print(json.dumps(asyncio.run(load(json.loads(Path(inputs).read_text()), addresses))))
