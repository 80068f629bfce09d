"""Requests to a service at a constant rate from one machine, each tried again once at another HTTP replica.

python -m benchmarks.hosts_load INPUTS        # until its input is closed; prints one line of JSON
python -m benchmarks.hosts_load INPUTS URL    # note the answers of the version that is served as right ones

The file REPLICAS has the URLs that are asked in turn, and may change meanwhile. The file RIGHT has the right answers
by version. Every fourth answer is confirmed by a label, which is to be in the log once the service has taken it.
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
LABELLED = 4  # answers for a label
RIGHT, REPLICAS = Path("right.json"), Path("replicas.txt")


async def ask(client: httpx.AsyncClient, url: str, path: str, content: Any) -> dict[str, Any] | str:
    """What an HTTP replica answers, or why it does not."""
    try:
        response = await client.post(f"{url}/v1/{path}", json=content)
        answer: dict[str, Any] = response.raise_for_status().json()
    except (httpx.HTTPError, ValueError) as error:
        return f"{url}: {type(error).__name__} {error}".strip()
    return answer


def is_right(response: dict[str, Any], item: int, right_labels: dict[str, list[str]]) -> bool:
    """Whether an answer matches its version's right answer; a degraded answer is not the large model's."""
    (answer,) = response["answers"]
    version = right_labels.get(response["model_version"])
    return version is not None and bool(answer.get("degraded") or answer["label"] == version[item])


async def load(items: list[Any]) -> dict[str, Any]:
    """Shares of requests that were answered at the first try and at all, their versions, and the wrong answers.

    `labelled` are the requests whose labels the service has taken. A line on stderr tells of each request that was not
    answered.
    """
    statuses: Counter[str] = Counter()
    answers: list[tuple[dict[str, Any], int]] = []
    lost_requests: list[str] = []
    labelled_requests: list[str] = []
    async with httpx.AsyncClient(timeout=TIMEOUT_S, limits=httpx.Limits(max_connections=500)) as client:
        started = time.monotonic()

        async def one(number: int) -> None:
            item, asked_at, urls = number % len(items), time.monotonic() - started, REPLICAS.read_text().split()
            question = {"inputs": [items[item]]}
            statuses["requests"] += 1
            answer = first = await ask(client, urls[number % len(urls)], "predict", question)
            if isinstance(first, str):
                answer = await ask(client, urls[(number + 1) % len(urls)], "predict", question)
            else:
                statuses["first"] += 1
            if isinstance(answer, str):
                lost_requests.append(f"after {asked_at:.1f} s: {first}; {answer}")
                return
            answers.append((answer, item))
            if number % LABELLED == 0:
                label = {"item": 0, "label": answer["answers"][0]["label"]}
                confirmed = {"request_id": answer["request_id"], "labels": [label]}
                if not isinstance(await ask(client, urls[(number + 2) % len(urls)], "feedback", confirmed), str):
                    labelled_requests.append(answer["request_id"])

        print("ready", file=sys.stderr, flush=True)
        tasks = set[asyncio.Task[None]]()
        end_of_input = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        for number in count():
            await asyncio.sleep(max(0.0, started + number / RATE - time.monotonic()))
            if end_of_input.done():
                break
            tasks.add(asyncio.create_task(one(number)))
        await asyncio.gather(*tasks)
    print(
        *lost_requests, sep="\n", file=sys.stderr
    )  # only at the end: the reader waits for the end, and a full pipe would block
    right_labels = json.loads(RIGHT.read_text())
    shares = {"first": statuses["first"] / statuses["requests"], "answered": len(answers) / statuses["requests"]}
    num_wrong = sum(not is_right(*answer, right_labels) for answer in answers)
    versions = Counter(answer["model_version"] for answer, _ in answers)
    return shares | {
        "wrong": num_wrong,
        "requests": statuses["requests"],
        "versions": versions,
        "labelled": labelled_requests,
    }


async def note(items: list[Any], url: str) -> dict[str, list[str]]:
    """The right answers, completed for the served version; RuntimeError if the answers mix versions."""
    async with httpx.AsyncClient(timeout=TIMEOUT_S) as client:
        responses = [await ask(client, url, "predict", {"inputs": [item]}) for item in items]
    answers = [
        response for response in responses if isinstance(response, dict) and not response["answers"][0].get("degraded")
    ]
    versions = {answer["model_version"] for answer in answers}
    if len(answers) < len(items) or len(versions) > 1:
        raise RuntimeError(f"{url} answers {len(answers)} of {len(items)} by the versions {versions}, without a fault")
    right_labels: dict[str, list[str]] = json.loads(RIGHT.read_text()) if RIGHT.exists() else {}
    return right_labels | {version: [answer["answers"][0]["label"] for answer in answers] for version in versions}


if __name__ == "__main__":
    inputs, *addresses = sys.argv[1:]
    content = json.loads(Path(inputs).read_text())
    if addresses:
        RIGHT.write_text(json.dumps(asyncio.run(note(content, addresses[0]))))
    else:
        print(json.dumps(asyncio.run(load(content))))
