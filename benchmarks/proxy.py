"""What a call takes longer that passes through: beside the same call at the upstream itself, on loopback.

    python benchmarks/proxy.py

The service runs as `kcm serve` starts it, with keys and a budget, around a stub encoder. The upstream answers at once.
Each pair of calls is made one after the other, so that other work on the machine slows both down. Prints medians in ms.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
from ray import serve
from rich.pretty import pprint

from benchmarks.attacks_served import KEYS, AttackedDoor, serve_config, written
from benchmarks.machine import machine
from benchmarks.script import options
from benchmarks.serve_sites import started
from benchmarks.upstream import labelled
from kcm.logs.template import Template
from pipelines.cluster.config import ClusterConfig
from pipelines.cluster.connection import connected
from pipelines.serve.config import ProxyConfig
from pipelines.serve.deploy.environment import prepare_environment
from pipelines.serve.release import Release
from pipelines.serve.sources import FixedSource

NUM_PAIRS, WARM_UP = 300, 50
MODEL = "gpt-4o-mini"
LABELLED = labelled("good")[2]  # what the bundle's large model is asked for before the service is ready
REPLY = LABELLED.replace(b'"usage": {}', b'"usage": {"prompt_tokens": 10, "completion_tokens": 1}')
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(REPLY), REPLY)
EVENTS = b"data: " + REPLY + b"\n\ndata: [DONE]\n\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n%s" % (len(EVENTS), EVENTS)


async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer the requests of one connection at once: those for a stream by one, in one write."""
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            fields = (line.split(b":", 1) for line in head.lower().split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(dict(fields).get(b"content-length", b"0")))
            writer.write(STREAM if b'"stream":true' in body.replace(b" ", b"") else WHOLE)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


@contextmanager
def instant_upstream() -> Iterator[str]:
    """The address of a server that answers at once, in a thread of its own."""
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, daemon=True).start()
    server = asyncio.run_coroutine_threadsafe(asyncio.start_server(answer, "127.0.0.1", 0), loop).result()
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    loop.call_soon_threadsafe(server.close)


@contextmanager
def service(upstream: str) -> Iterator[str]:
    """The address of a service in front of `upstream`."""
    prepare_environment()
    with tempfile.TemporaryDirectory() as name, connected(ClusterConfig()):
        folder = Path(name)
        proxy = ProxyConfig(
            upstream=upstream,
            api_key_env=None,
            template=Template(before="Review: "),
            prices=dict.fromkeys((MODEL, "m"), (0.15, 0.6)),  # the bundle's large model is "m"
            max_cost=1000.0,
        )
        config = serve_config("text", folder, upstream)
        own = tuple(each for each in config.large.upstreams if each.base_url != upstream)
        large = config.large.model_copy(update={"upstreams": own})
        config = config.model_copy(update={"proxy": proxy, "large": large}).with_proxy_server
        release = Release(version="films/1", bundle=written("text", folder, upstream))
        try:
            yield started(AttackedDoor, FixedSource(release), config, folder) + "/v1"
        finally:
            serve.shutdown()


def milliseconds(client: httpx.Client, url: str, stream: bool) -> float:
    """From the request to the whole reply, or to the first byte of a stream."""
    headers = {"Authorization": f"Bearer {KEYS['ann']}"}
    messages = [{"role": "user", "content": "Write a poem."}]
    body = {"model": MODEL, "messages": messages, "max_tokens": 10, "stream": stream}
    began = time.perf_counter()
    with client.stream("POST", f"{url}/chat/completions", json=body, headers=headers) as reply:
        chunks = reply.iter_raw()
        first = next(chunks)
        took = time.perf_counter() - began
        assert reply.status_code == 200, first
        assert all(chunks)  # to its end: the connection is used again
    return 1000 * took


def medians(calls: dict[str, Callable[[], float]]) -> dict[str, float]:
    """The median of each kind of call; one of each after the other."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(WARM_UP + NUM_PAIRS):
        for name, call in calls.items():
            took = call()
            if number >= WARM_UP:
                times[name].append(took)
    return {name: round(statistics.median(each), 2) for name, each in times.items()}


def main() -> None:
    """Measure and print."""
    options(__doc__).parse_args()
    with instant_upstream() as upstream, service(upstream) as url, httpx.Client(timeout=60) as client:
        figures = {
            kind: medians(
                {
                    "direct": lambda stream=stream: milliseconds(client, upstream, stream),  # type: ignore[misc]
                    "through kcm": lambda stream=stream: milliseconds(client, url, stream),  # type: ignore[misc]
                }
            )
            for kind, stream in (("whole reply", False), ("first streamed byte", True))
        }
    pprint({"machine": machine(), "median_ms": figures})


if __name__ == "__main__":
    main()
