"""Logs to test on: calls of a queue classifier and of a free-text prompt, written in the formats that people have."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

SYSTEM = "Sort support tickets into queues. Answer with the queue alone."
BEFORE, AFTER = "Ticket: ", "\nQueue:"
QUEUES = {
    "billing": "paid twice invoice refund card charge price discount money bank account",
    "login": "password sign blocked code phone email reset user locked session",
    "shipping": "parcel courier late address lost box delivered street tracking driver",
}
FILLER = "please help me with this today since it does not work again and nobody answers here"
BEGIN = 1_760_000_000.0  # 9 October 2025
SECRET = "sk-abcdefghijklmnop1234567890"

Exchange = dict[str, Any]


def exchanges(
    num_calls: int,
    *,
    free: float = 0.3,
    noise: float = 0.02,
    seed: int = 0,
    days: float = 30.0,
    mix: Callable[[float], list[float]] = lambda time: [1 / 3] * 3,
) -> list[Exchange]:
    """Calls in the order of time; `mix` gives the shares of the queues at a time in [0, 1]."""
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num_calls):
        time = BEGIN + days * 86_400 * number / num_calls
        if rng.random() < free:
            words = " ".join(rng.choice(FILLER.split(), 12))
            messages = [{"role": "user", "content": f"Write a friendly reply to this customer: {words} {number}"}]
            reply = f"Dear customer, {' '.join(rng.choice(FILLER.split(), 9))}."
        else:
            queue = str(rng.choice(list(QUEUES), p=mix(number / num_calls)))
            words = [*rng.choice(QUEUES[queue].split(), 4), *rng.choice(FILLER.split(), 5), str(number)]
            text = " ".join(rng.permutation(words))
            messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"{BEFORE}{text}{AFTER}"}]
            reply = queue if rng.random() >= noise else str(rng.choice(list(QUEUES)))
        found.append({"messages": messages, "reply": reply, "read": 60, "written": 3, "time": time})
    return found


def openai_rows(calls: Iterable[Exchange]) -> Iterator[dict[str, Any]]:
    """Requests with their headers, and responses, as middleware writes them."""
    for call in calls:
        yield {
            "request": {
                "headers": {"Authorization": f"Bearer {SECRET}"},
                "body": {"model": "gpt-4o", "messages": call["messages"]},
            },
            "response": {
                "status_code": 200,
                "body": {
                    "id": "chatcmpl-A8RMqmVqrm2Ni505AaWK4mN1i8KMD",
                    "object": "chat.completion",
                    "created": int(call["time"]),
                    "model": "gpt-4o-2024-08-06",
                    "choices": [
                        {
                            "index": 0,
                            "message": {"role": "assistant", "content": call["reply"], "refusal": None},
                            "logprobs": None,
                            "finish_reason": "stop",
                        }
                    ],
                    "usage": {
                        "prompt_tokens": call["read"],
                        "completion_tokens": call["written"],
                        "total_tokens": call["read"] + call["written"],
                    },
                },
            },
        }


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    """A file of JSON lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
