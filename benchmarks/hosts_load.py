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


async def ask(client: httpx.AsyncClient, url: str, item: Any) -> dict[str, Any] | str:
    """The answer to an item, or why there is none."""
    try:
        response = await client.post(f"{url}/v1/predict", json={"inputs": [item]})
        answer: dict[str, Any] = response.raise_for_status().json()["answers"][0]
    except (httpx.HTTPError, ValueError, LookupError) as error:
        return f"{url}: {type(error).__name__} {error}".strip()
    return answer


async def load(items: list[Any], urls: list[str]) -> dict[str, float]:
    """Shares of requests that were answered at the first try and at all, and how many answers were wrong.

    An answer that says that it is degraded is none of the large model, and not wrong. A line on stderr tells of each
    request that was not answered.
    """
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=500)) as client:
        right = await right_answers(client, items, urls[0])
        found: Counter[str] = Counter()
        lost: list[str] = []
        started = time.monotonic()

        async def one(number: int) -> None:
            item, asked = number % len(items), time.monotonic() - started
            found["requests"] += 1
            answer = first = await ask(client, urls[number % len(urls)], items[item])
            if isinstance(first, str):
                answer = await ask(client, urls[(number + 1) % len(urls)], items[item])
            else:
                found["first"] += 1
            if isinstance(answer, str):
                lost.append(f"after {asked:.1f} s: {first}; {answer}")
                return
            found["answered"] += 1
            found["wrong"] += not answer.get("degraded") and answer["label"] != right[item]

        print("ready", file=sys.stderr, flush=True)
        tasks = set[asyncio.Task[None]]()
        ended = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        for number in count():
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))
            if ended.done():
                break
            tasks.add(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
    print(*lost, sep="\n", file=sys.stderr)  # at the end: who reads it waits for the end, and a full pipe would stop us
    shares = {name: found[name] / found["requests"] for name in ("first", "answered")}
    return shares | {"wrong": found["wrong"], "requests": found["requests"]}


async def right_answers(client: httpx.AsyncClient, items: list[Any], url: str) -> list[str]:
    """The labels of the items, from the file where it exists; RuntimeError where the door does not answer."""
    if RIGHT.exists():
        labels: list[str] = json.loads(RIGHT.read_text())
        return labels
    answers = [await ask(client, url, item) for item in items]
    labels = [answer["label"] for answer in answers if isinstance(answer, dict) and not answer.get("degraded")]
    if len(labels) < len(items):
        raise RuntimeError(f"{url} answers {len(labels)} of {len(items)} before any fault")
    RIGHT.write_text(json.dumps(labels))
    return labels


if __name__ == "__main__":
    inputs, *addresses = sys.argv[1:]
    print(json.dumps(asyncio.run(load(json.loads(Path(inputs).read_text()), addresses))))
