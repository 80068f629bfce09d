"""Requests straight through the ASGI interface: deep ones break nothing, good ones leave nothing."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import tracemalloc
from collections.abc import Iterable
from typing import Any

import pytest
from fastapi import FastAPI

from pipelines.serve.config import LimitsConfig, ServeConfig
from pipelines.serve.http.api import create_api

VALID: dict[str, Any] = {
    "/v1/predict": {"inputs": [{"text": "What a film!", "task": "movies"}, {"text": "It has its moments."}]},
    "/v1/explain": {"input": {"text": "What a film!", "task": "movies"}, "top": 3},
    "/v1/feedback": {"request_id": "mine", "labels": [{"item": 0, "label": "good", "text": "x", "task": "movies"}]},
    "/v1/chat/completions": {"model": "kcm", "messages": [{"role": "user", "content": "<<<\na\n>>>"}], "n": 1},
}


@pytest.fixture
def api(service: Any, caplog: pytest.LogCaptureFixture) -> FastAPI:
    caplog.set_level(logging.ERROR, logger="ray.serve")
    service.seen, service.origins = Forgetful(), Forgetful()
    limits = LimitsConfig(max_items=3, max_text_length=100, max_body_bytes=8000, max_json_values=1000)
    return create_api(service, ServeConfig(limits=limits, allowed_hosts=("*",)))


class Forgetful(list[Any]):
    """A list that keeps nothing: what a stub remembers is no leak of the interface."""

    def __iadd__(self, other: Iterable[Any]) -> Forgetful:  # type: ignore[override, misc]
        return self


async def status_of(api: FastAPI, path: str, body: bytes) -> int:
    """The status of the answer, without a client in between."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())],
    }
    statuses: list[int] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])

    await api(scope, receive, send)
    (status,) = statuses
    return status


@pytest.mark.slow
async def test_memory_does_not_grow_with_the_number_of_requests(api: FastAPI) -> None:
    """Promise: an answered request leaves nothing behind; later hundreds need no more memory than the first."""
    body = json.dumps(VALID["/v1/predict"]).encode()

    async def ask(number: int) -> int:
        for _ in range(number):
            assert await status_of(api, "/v1/predict", body) == 200
        await asyncio.sleep(0)  # the event loop forgets timers that have been cancelled
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    async def grown() -> int:
        await ask(100)
        tracemalloc.start()
        try:
            before = await ask(50)
            return await ask(300) - before
        finally:
            tracemalloc.stop()

    assert await grown() < 300 * 20  # bytes: a fiftieth of what keeping each response would take


@pytest.mark.parametrize("opening", ["[", '{"a":', '{"inputs":[', '{"messages":[{"content":['])
async def test_json_however_deep_is_the_client_s_fault_at_every_door(api: FastAPI, service: Any, opening: str) -> None:
    depths = (100, 150, 201, 700, 8000 // len(opening))
    bodies = [opening * depth + closing for depth in depths for closing in ("", "]" * depth, "}" * depth)]
    assert ({await status_of(api, path, body.encode()) for path in VALID for body in bodies}) <= {413, 422}
    assert service.num_failed == 0
